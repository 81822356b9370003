"""The sequential tests: levels, delays, and states that are the formulas. Vectorised oracles, written apart."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.sequential import Cusum, Mixture, error_rate, quality, relative_latency, slo
from router.sequential.mixture import crossing, cusum_logs, log_factors, log_mean, mixture_logs

Floats = NDArray[np.float64]
State = Mixture | Cusum


def geometric(low: float, high: float, bound: float) -> Floats:
    return np.geomspace(low, high, 12) / bound


def until(state: State, factors: Floats, boundary: float) -> int:
    """How many more increments with these log factors (1, bets) it takes to the boundary."""
    before = state.n
    while state.log_value < boundary:
        assert state.n < before + 100_000
        state = state.fold(factors)
    return state.n - before


def one(value: float) -> Floats:
    return np.array([value])


def lost(rng: np.random.Generator, shape: int | tuple[int, int], rate: float) -> Floats:
    """D of agreement: -1 at that rate, else 0."""
    return np.where(rng.random(shape) < rate, -1.0, 0.0)


def test_clean_requests_that_the_error_test_needs() -> None:
    needed = {p: until(Mixture(), error_rate.passes(one(0.0), p), math.log(20)) for p in (0.005, 0.01)}
    assert needed == {0.005: 1153, 0.01: 575}


def test_clean_blocks_that_the_slo_test_needs() -> None:
    """About 150 with alpha split over five steps at q = .05, 73 at q = .1."""
    needed = {q: until(Mixture(), slo.passes(one(0.0), q), math.log(100)) for q in (0.05, 0.1)}
    assert needed == {0.05: 151, 0.1: 73}


def test_faster_pairs_that_the_latency_test_needs() -> None:
    faster = relative_latency.slower(one(1.0), one(2.0), 0.0)
    assert until(Mixture(), relative_latency.passes(faster), math.log(20)) == 8


def test_a_pair_is_slower_only_beyond_the_margin() -> None:
    student = np.array([100.0, 110.0, 111.0, 90.0])
    assert relative_latency.slower(student, np.full(4, 100.0), 0.0).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert relative_latency.slower(student, np.full(4, 100.0), 0.1).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_a_student_that_is_as_often_slower_as_not_does_not_pass() -> None:
    w = np.arange(2000) % 2 * 1.0
    assert Mixture().fold(relative_latency.passes(w)).log_value < 0


X = np.array([0.0, 0.03, 0.5, 1.0])


@pytest.mark.parametrize(
    ("test", "x", "bets"),
    [
        (lambda: error_rate.passes(X, 0.01), 0.01 - X, geometric(0.01, 0.9, 0.99)),
        (lambda: error_rate.watch(X, 0.01), X - 0.01, geometric(0.05, 1.0, 1.0)),
        (lambda: slo.passes(X, 0.1), 0.1 - X, geometric(0.01, 0.9, 0.9)),
        (lambda: slo.watch(X, 0.1), X - 0.1, geometric(0.01, 0.9, 0.1)),
        (lambda: relative_latency.passes(X), 0.5 - X, geometric(0.01, 0.9, 0.5)),
        (lambda: quality.passes_on_grid(-X, 0.07), 0.07 - X, geometric(0.01, 0.5, 0.93)),
        (lambda: quality.passes_on_grid(-X, 0.07, 0.5), 0.5 * (0.07 - X), geometric(0.01, 0.5, 0.93)),
        (lambda: quality.fails(-X, 0.07), X - 0.07, geometric(0.01, 0.9, 1.07)),
        (lambda: quality.fails(-X, 0.07, 0.5), 0.5 * (X - 0.07), geometric(0.01, 0.9, 1.07)),
        (lambda: quality.watch(-X, 0.07), X - 0.07, geometric(0.01, 0.9, 1.07)),
        (lambda: quality.watch(-X, 0.07, 0.5), 0.5 * (X - 0.07), geometric(0.01, 0.9, 1.07)),
    ],
)
def test_each_tests_bets_are_those_of_its_docstring(test: Any, x: Floats, bets: Floats) -> None:
    assert test() == pytest.approx(np.log(1.0 + x[:, None] * bets), abs=1e-12)


def test_the_state_machine_is_the_formula() -> None:
    rng = np.random.default_rng(2)
    d = np.where(rng.random(400) < 0.1, -1.0, 0.0)
    state = Mixture().fold(quality.passes_on_grid(d, 0.07))
    logs = np.log1p((d[:, None] + 0.07) * geometric(0.01, 0.5, 0.93)).sum(axis=0)
    assert state.log_value == pytest.approx(float(np.logaddexp.reduce(logs) - math.log(12)))
    assert state.n == 400


@pytest.mark.parametrize("kind", [Mixture, Cusum])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), cuts=st.lists(st.floats(0.0, 1.0), max_size=5))
def test_folding_in_any_batches_is_folding_one_by_one(kind: type[State], seed: int, n: int, cuts: list[float]) -> None:
    factors = log_factors(np.random.default_rng(seed).uniform(-0.93, 0.93, n), geometric(0.01, 0.9, 1.0))
    batched, single = kind(), kind()
    for batch in np.split(factors, sorted(round(cut * n) for cut in cuts)):
        batched = batched.fold(batch)
    for factor in factors:
        single = single.fold(factor[None])
    assert batched.n == single.n == n
    assert batched.logs == pytest.approx(single.logs, abs=1e-12)
    assert batched.best == pytest.approx(single.best, abs=1e-12)
    assert batched.log_value == pytest.approx(single.log_value, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_unrolled_detector_is_the_recursion(seed: int) -> None:
    """From a start above and below 1, on two paths at once, and from M = 1."""
    rng = np.random.default_rng(seed)
    factors = rng.uniform(-1.5, 1.0, (2, 1 + seed, 3))
    before = tuple(rng.uniform(-3.0, 3.0, 3))
    for start in (before, ()):
        logs, path = np.broadcast_to(np.array(start or (0.0, 0.0, 0.0)), (2, 3)), []
        for i in range(1 + seed):
            logs = np.maximum(logs, 0.0) + factors[:, i]
            path.append(logs)
        assert cusum_logs(factors, start) == pytest.approx(np.stack(path, axis=1), abs=1e-12)
        assert cusum_logs(factors[1], start) == pytest.approx(np.stack(path, axis=1)[1], abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("detector", [True, False])
def test_best_is_the_highest_value_at_any_look(seed: int, detector: bool) -> None:
    factors = log_factors(np.random.default_rng(seed).uniform(-0.9, 0.9, 60), geometric(0.01, 0.9, 1.0))
    values = log_mean(cusum_logs(factors) if detector else mixture_logs(factors))
    state: State = Cusum() if detector else Mixture()
    state = state.fold(factors)
    assert state.best == pytest.approx(max(0.0, float(values.max())), abs=1e-12)
    assert state.reached(state.best)
    assert not state.reached(state.best + 1e-9)


def test_a_test_that_has_passed_stays_passed() -> None:
    passed = Mixture().fold(quality.passes_on_grid(np.zeros(400), 0.07))
    after = passed.fold(quality.passes_on_grid(np.full(100, -1.0), 0.07))
    assert after.log_value < 0.0
    assert after.reached(math.log(20))
    assert after.best == passed.best


@pytest.mark.parametrize("state", [Mixture(), Cusum()])
def test_a_state_without_evidence_is_worth_one_and_folding_nothing_changes_nothing(state: State) -> None:
    assert state.log_value == 0.0
    assert state.fold(np.empty((0, 12))) == state
    some = state.fold(np.full((3, 2), 0.5))
    assert some.fold(np.empty((0, 2))) is some
    assert some.n == 3


def test_the_log_of_a_mean_does_not_overflow() -> None:
    assert log_mean(np.array([[1000.0, 1000.0], [-1000.0, -1000.0 + math.log(3)]])) == pytest.approx(
        [1000.0, -1000.0 + math.log(2)]
    )


def test_a_path_crosses_where_it_first_reaches_the_boundary() -> None:
    values = np.array([[0.0, 3.0, 1.0, 4.0], [0.0, 1.0, 2.0, 2.9], [3.5, 0.0, 0.0, 0.0]])
    assert crossing(values, 3.0).tolist() == [2, 0, 1]


@pytest.mark.parametrize("test", [quality.passes, quality.passes_on_grid])
def test_a_student_at_the_margin_passes_at_most_alpha_of_the_time_looked_at_always(test: Any) -> None:
    rng = np.random.default_rng(3)
    passed = [
        crossing(log_mean(mixture_logs(test(lost(rng, (50, 2000), 0.07), 0.07))), math.log(20)) > 0 for _ in range(16)
    ]
    share = np.mean(passed)
    assert 0.005 < share <= 0.05  # holds its level, and isn't so strict that it could never pass


def test_a_margin_test_does_not_pass_a_worse_student() -> None:
    worse = np.where(np.arange(2000) % 8 == 0, -1.0, 0.0)
    assert Mixture().fold(quality.passes_on_grid(worse, 0.07)).log_value < 0
    assert Mixture().fold(quality.passes(worse, 0.07)).log_value < 0
    assert Mixture().fold(quality.fails(worse, 0.07)).log_value > math.log(20)


@pytest.mark.parametrize(("rate", "delay"), [(0.17, 204), (0.27, 90), (0.5, 39), (1.0, 19)])
def test_detection_delays_after_a_long_good_time(rate: float, delay: int) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(60):
        rested = Cusum().fold(quality.watch(lost(rng, 500, 0.033), 0.07))
        after = cusum_logs(quality.watch(lost(rng, 2000, rate), 0.07), rested.logs)
        found.append(int(crossing(log_mean(after), math.log(3000))))
    assert min(found) > 0
    assert statistics.median(found) == pytest.approx(delay, rel=0.15)


def test_good_times_do_not_put_the_detector_to_sleep() -> None:
    harm = quality.watch(one(-1.0), 0.07)
    fresh = until(Cusum(), harm, math.log(3000))
    rested = Cusum().fold(quality.watch(np.zeros(20_000), 0.07))
    assert rested.best == 0.0
    assert until(rested, harm, math.log(3000)) <= fresh + 1


def test_a_boundary_student_seldom_raises_a_false_alarm() -> None:
    rng = np.random.default_rng(5)
    bets = geometric(0.01, 0.9, 1.07)
    logs, alarms = np.zeros((300, 12)), np.zeros(300, dtype=bool)
    for _ in range(6000):
        logs = np.maximum(logs, 0) + np.log1p((-lost(rng, 300, 0.07) - 0.07)[:, None] * bets)
        alarms |= np.logaddexp.reduce(logs, axis=1) - math.log(12) >= math.log(3000)
    assert alarms.mean() <= 0.03  # 2% within 20,000 pairs


@pytest.mark.parametrize(("level", "margin"), [(-0.01, 0.06), (0.08, -0.03)])
def test_the_detector_from_a_level_rises_more_than_5_points_below_it_and_not_above(level: float, margin: float) -> None:
    assert 0.05 - level == pytest.approx(margin)
    below = Cusum().fold(quality.watch(np.full(50, level - 0.06), margin))
    above = Cusum().fold(quality.watch(np.full(50, level - 0.04), margin))
    assert above.log_value < 0.0 < below.log_value


def test_error_and_slo_detectors_fire_above_their_rates_and_rest_below() -> None:
    in_a_row = until(Cusum(), error_rate.watch(one(1.0), 0.01), math.log(3000))
    assert 10 < in_a_row <= 15  # the hard stop, at 10, comes first
    assert until(Cusum(), slo.watch(one(0.5), 0.1), math.log(3000)) <= 20
    quiet = Cusum().fold(error_rate.watch((np.arange(5000) % 400 == 0) * 1.0, 0.01))
    assert quiet.log_value < math.log(3000) / 2


def test_pairs_that_came_about_more_often_count_less() -> None:
    """Audits at two rates, 5% where the student is bad and 100% where it is good: unweighted it would pass."""
    rng = np.random.default_rng(6)
    bad = rng.random(200_000) < 0.5
    kept = rng.random(200_000) < np.where(bad, 0.05, 1.0)
    d = np.where(bad & (rng.random(200_000) < 0.20), -1.0, 0.0)[kept]
    weights = np.where(bad, 1.0, 0.05)[kept]
    for test in (quality.passes, quality.passes_on_grid):
        assert Mixture().fold(test(d, 0.07)).reached(math.log(20))
        assert not Mixture().fold(test(d, 0.07, weights)).reached(math.log(20))
    assert Cusum().fold(quality.watch(d, 0.07, weights)).reached(math.log(3000))
    assert Mixture().fold(quality.fails(d, 0.07, weights)).reached(math.log(20))


def test_blocks_hold_each_answer_once() -> None:
    block, closed = slo.Block(), []
    for now, slow in ((100.2, True), (101.0, False), (109.9, False), (110.1, False), (111.0, True), (125.0, False)):
        block, done = slo.add(block, now, 10.0, slow=slow, total=1)
        closed += [done] if done else []
    assert [(b.slow, b.total) for b in [*closed, block]] == [(1, 3), (1, 2), (0, 1)]
    assert closed[0].share == pytest.approx(1 / 3)


def test_a_block_takes_many_answers_at_once() -> None:
    block, done = slo.add(slo.Block(), 100.0, 10.0, slow=2, total=5)
    assert done is None
    block, done = slo.add(block, 105.0, 10.0, slow=1, total=3)
    assert (block, done) == (slo.Block(10, 3, 8), None)
    block, done = slo.add(block, 110.0, 10.0, slow=0, total=2)
    assert (block, done) == (slo.Block(11, 0, 2), slo.Block(10, 3, 8))
