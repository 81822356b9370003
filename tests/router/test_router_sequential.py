"""The sequential tests: known answers, and false alarms held at their level. Vectorised oracles, written apart."""

import math
import statistics

import numpy as np
import pytest
from numpy.typing import NDArray

from router.sequential import Cusum, Mixture, error_rate, quality, relative_latency, slo

Floats = NDArray[np.float64]


def geometric(low: float, high: float, bound: float) -> Floats:
    return np.geomspace(low, high, 12) / bound


def crossing(x: Floats, bets: Floats, log_boundary: float) -> NDArray[np.int64]:
    """The first n at which mean_j prod (1 + l_j x) >= boundary on each path; the number of steps + 1 where never."""
    logs = np.cumsum(np.log1p(x[:, :, None] * bets), axis=1)
    hit = np.logaddexp.reduce(logs, axis=2) - math.log(12) >= log_boundary
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, x.shape[1] + 1)


def until(test: "type[Mixture] | type[Cusum]", step: object, boundary: float) -> int:
    state = test()
    while state.log_value < boundary:
        state = step(state)  # type: ignore[operator]
    return state.n


def test_clean_requests_that_the_error_test_needs() -> None:
    needed = {p: until(Mixture, lambda s, p=p: error_rate.passes(s, 0.0, p), math.log(20)) for p in (0.005, 0.01)}
    assert needed == {0.005: 1153, 0.01: 575}


def test_clean_blocks_that_the_slo_test_needs() -> None:
    """About 150 with alpha split over five steps at q = .05, 73 at q = .1."""
    needed = {q: until(Mixture, lambda s, q=q: slo.passes(s, 0.0, q), math.log(100)) for q in (0.05, 0.1)}
    assert needed == {0.05: 151, 0.1: 73}


def test_faster_pairs_that_the_latency_test_needs() -> None:
    assert until(Mixture, lambda s: relative_latency.passes(s, 1.0, 2.0, 0.0), math.log(20)) == 8


@pytest.mark.parametrize(
    ("margin", "rate", "median"), [(0.07, 0.02, 216), (0.07, 0.033, 331), (0.10, 0.01, 109), (0.10, 0.033, 163)]
)
def test_median_pairs_to_pass_by_disagreement(margin: float, rate: float, median: int) -> None:
    draws = np.random.default_rng(1).random((600, 1500)) < rate
    n = crossing(margin - draws, geometric(0.01, 0.5, 1 - margin), math.log(20))
    assert statistics.median(n) == pytest.approx(median, rel=0.10)


def test_the_state_machine_is_the_formula() -> None:
    rng = np.random.default_rng(2)
    d = np.where(rng.random(400) < 0.1, -1.0, 0.0)
    state = Mixture()
    for value in d:
        state = quality.passes(state, float(value), 0.07)
    logs = np.log1p((d[:, None] + 0.07) * geometric(0.01, 0.5, 0.93)).sum(axis=0)
    assert state.log_value == pytest.approx(float(np.logaddexp.reduce(logs) - math.log(12)))
    assert state.n == 400


def test_a_student_at_the_margin_passes_at_most_alpha_of_the_time_looked_at_always() -> None:
    draws = np.random.default_rng(3).random((1000, 3000)) < 0.07
    n = crossing(0.07 - draws, geometric(0.01, 0.5, 0.93), math.log(20))
    share = np.mean(n <= 3000)
    assert 0.005 < share <= 0.05  # holds its level, and isn't so strict that it could never pass


def test_a_margin_test_does_not_pass_a_worse_student() -> None:
    state = Mixture()
    for i in range(2000):
        state = quality.passes(state, -float(i % 8 == 0), 0.07)
    assert state.log_value < 0
    opposite = Mixture()
    for i in range(2000):
        opposite = quality.fails(opposite, -float(i % 8 == 0), 0.07)
    assert opposite.log_value > math.log(20)


@pytest.mark.parametrize(("rate", "delay"), [(0.17, 204), (0.27, 90), (0.5, 39), (1.0, 19)])
def test_detection_delays_after_a_long_good_time(rate: float, delay: int) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(40):
        state = Cusum()
        for lost in rng.random(500) < 0.033:
            state = quality.watch(state, -float(lost), 0.07)
        before = state.n
        while state.log_value < math.log(3000):
            state = quality.watch(state, -float(rng.random() < rate), 0.07)
        found.append(state.n - before)
    assert statistics.median(found) == pytest.approx(delay, rel=0.15)


def test_good_times_do_not_put_the_detector_to_sleep() -> None:
    fresh = until(Cusum, lambda s: quality.watch(s, -1.0, 0.07), math.log(3000))
    rested = Cusum()
    for _ in range(20_000):
        rested = quality.watch(rested, 0.0, 0.07)
    before = rested.n
    while rested.log_value < math.log(3000):
        rested = quality.watch(rested, -1.0, 0.07)
    assert rested.n - before <= fresh + 1


def test_a_boundary_student_seldom_raises_a_false_alarm() -> None:
    rng = np.random.default_rng(5)
    bets = geometric(0.01, 0.9, 1.07)
    logs, alarms = np.zeros((300, 12)), np.zeros(300, dtype=bool)
    for _ in range(6000):
        lost = rng.random(300) < 0.07
        logs = np.maximum(logs, 0) + np.log1p((lost - 0.07)[:, None] * bets)
        alarms |= np.logaddexp.reduce(logs, axis=1) - math.log(12) >= math.log(3000)
    assert alarms.mean() <= 0.03  # 2% within 20,000 pairs


@pytest.mark.parametrize(("level", "margin"), [(-0.01, 0.06), (0.08, -0.03)])
def test_the_detector_from_a_level_rises_more_than_5_points_below_it_and_not_above(level: float, margin: float) -> None:
    assert 0.05 - level == pytest.approx(margin)
    below, above = Cusum(), Cusum()
    for _ in range(50):
        below = quality.watch(below, level - 0.06, margin)
        above = quality.watch(above, level - 0.04, margin)
    assert above.log_value < 0.0 < below.log_value


def test_error_and_slo_detectors_fire_above_their_rates_and_rest_below() -> None:
    in_a_row = until(Cusum, lambda s: error_rate.watch(s, 1.0, 0.01), math.log(3000))
    assert 10 < in_a_row <= 15  # the hard stop, at 10, comes first
    assert until(Cusum, lambda s: slo.watch(s, 0.5, 0.1), math.log(3000)) <= 20
    quiet = Cusum()
    for i in range(5000):
        quiet = error_rate.watch(quiet, float(i % 400 == 0), 0.01)
    assert quiet.log_value < math.log(3000) / 2


def test_blocks_hold_each_answer_once() -> None:
    block, closed = slo.Block(), []
    for now, slow in ((100.2, True), (101.0, False), (109.9, False), (110.1, False), (111.0, True), (125.0, False)):
        block, done = slo.add(block, now, 10.0, slow=slow)
        closed += [done] if done else []
    assert [(b.slow, b.total) for b in [*closed, block]] == [(1, 3), (1, 2), (0, 1)]
    assert closed[0].share == pytest.approx(1 / 3)
