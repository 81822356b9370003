"""Unpaired outcomes: unbiased over a ramp and a drift, bounded, and harm is seen."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.sequential import Cusum, outcomes
from router.sequential.mixture import crossing, cusum_logs, log_mean
from router.sequential.outcomes import Baseline

Floats = NDArray[np.float64]


def traffic(rng: np.random.Generator, n: int, harm: float, pi: Any = 0.5, base: Any = 0.6) -> tuple[Floats, ...]:
    """Outcomes, arms and propensities; the student's success is `harm` below the teacher's."""
    propensity = np.broadcast_to(np.asarray(pi, dtype=float), n)
    student = (rng.random(n) < propensity) * 1.0
    return (rng.random(n) < base - harm * student) * 1.0, student, propensity


def test_effects_by_hand() -> None:
    """m: 1/2, then (1/2 + 1)/2, (1/2 + 1 + 0)/3."""
    after, z, bound = outcomes.effects(
        Baseline(), np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.array([0.5, 0.2, 0.2])
    )
    assert z == pytest.approx([(1 - 0.5) / 0.5, (0 - 0.75) / 0.2, -(1 - 0.5) / 0.8])
    assert bound == pytest.approx([max(0.5, 0.5) / 0.5, max(0.25 / 0.2, 0.75 / 0.8), max(0.5 / 0.2, 0.5 / 0.8)])
    assert after == Baseline(3, 2.0)
    assert after.mean == pytest.approx(2.5 / 4)
    assert Baseline().mean == 0.5


def test_the_mean_effect_is_the_difference_whatever_the_ramp_and_the_drift() -> None:
    """A ramp from 5 to 50% over a base that rises: the arms' raw means differ by far more than the true -0.1."""
    n = 400_000
    rng = np.random.default_rng(1)
    y, student, pi = traffic(rng, n, 0.1, np.linspace(0.05, 0.5, n), np.linspace(0.3, 0.9, n))
    _, z, _ = outcomes.effects(Baseline(), y, student, pi)
    assert z.mean() == pytest.approx(-0.1, abs=4 * float(z.std()) / math.sqrt(n))
    assert y[student > 0].mean() - y[student == 0].mean() > 0.0


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(0, 5),
    total=st.floats(0.0, 1.0),
    y=st.floats(0.0, 1.0),
    student=st.booleans(),
    pi=st.floats(0.01, 0.99),
    margin=st.floats(0.01, 0.3),
)
def test_an_effect_is_within_its_bound_and_no_factor_vanishes(
    n: int, total: float, y: float, student: bool, pi: float, margin: float
) -> None:
    start = Baseline(n, total * n)
    arrays = (np.array([y]), np.array([float(student)]), np.array([pi]))
    _, z, bound = outcomes.effects(start, *arrays)
    assert z[0] <= bound[0] + 1e-9
    _, factors = outcomes.watch(start, *arrays, margin)
    assert factors.shape == (1, 12)
    assert factors.min() >= math.log(0.5) - 1e-9


def test_bets_are_scaled_by_each_observations_own_bound() -> None:
    y, student, pi = np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([0.5, 0.1])
    _, z, bound = outcomes.effects(Baseline(), y, student, pi)
    _, factors = outcomes.watch(Baseline(), y, student, pi, 0.05)
    shares = np.geomspace(0.01, 0.5, 12)
    assert factors == pytest.approx(np.log1p(-(z + 0.05)[:, None] * shares / (bound + 0.05)[:, None]))


@pytest.mark.parametrize("pi", [0.0, 0.0099, 0.9901, 1.0])
def test_an_arm_that_was_all_but_certain_compares_nothing(pi: float) -> None:
    after, factors = outcomes.watch(Baseline(), np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.full(2, pi), 0.05)
    assert not factors.any()
    _, z, bound = outcomes.effects(Baseline(), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.full(2, pi))
    assert (z.tolist(), bound.tolist()) == ([0.0, 0.0], [math.inf, math.inf])
    assert after == Baseline(2, 0.0)  # yet it says what outcomes are like


@pytest.mark.parametrize("pi", [0.01, 0.99])
def test_an_arm_of_one_in_a_hundred_still_compares(pi: float) -> None:
    _, factors = outcomes.watch(Baseline(), np.array([0.0]), np.array([1.0]), np.array([pi]), 0.05)
    assert factors.all()


@pytest.mark.parametrize("cut", [1, 20, 59])
def test_folding_in_batches_is_folding_at_once(cut: int) -> None:
    y, student, pi = traffic(np.random.default_rng(cut), 60, 0.2, 0.3)
    whole, factors = outcomes.watch(Baseline(), y, student, pi, 0.05)
    half, first = outcomes.watch(Baseline(), y[:cut], student[:cut], pi[:cut], 0.05)
    end, second = outcomes.watch(half, y[cut:], student[cut:], pi[cut:], 0.05)
    assert end == whole
    assert np.concatenate([first, second]) == pytest.approx(factors, abs=1e-12)
    _, z, bound = outcomes.effects(half, y[cut:], student[cut:], pi[cut:])
    m = (0.5 + y[:cut].sum()) / (1 + cut)
    expected = (y[cut] - m) / 0.3 if student[cut] else (m - y[cut]) / 0.7
    assert (z[0], bound[0]) == pytest.approx((expected, max((1 - m) / 0.3, m / 0.7)))


def test_harm_is_seen_and_a_student_at_the_margin_is_not_accused() -> None:
    rng = np.random.default_rng(2)
    found, healthy, accused = [], 0, 0
    for _ in range(30):
        _, factors = outcomes.watch(Baseline(), *traffic(rng, 4000, 0.25), 0.05)
        found.append(int(crossing(log_mean(cusum_logs(factors)), math.log(3000))))
        _, factors = outcomes.watch(Baseline(), *traffic(rng, 10_000, 0.0), 0.05)
        healthy += Cusum().fold(factors).reached(math.log(3000))
        _, factors = outcomes.watch(Baseline(), *traffic(rng, 10_000, 0.05), 0.05)
        accused += Cusum().fold(factors).reached(math.log(3000))
    assert min(found) > 0
    assert 250 < np.median(found) < 800  # 20 points beyond the margin, at equal shares: about 330
    assert healthy == 0
    assert accused <= 5  # exactly at the margin: about one in 25 within 10,000


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_outcomes_outside_0_and_1_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="outcomes must be between 0 and 1; got"):
        outcomes.watch(Baseline(), np.array([0.5, value]), np.ones(2), np.full(2, 0.5), 0.05)


def test_no_outcomes_change_nothing() -> None:
    after, factors = outcomes.watch(Baseline(3, 2.0), np.empty(0), np.empty(0), np.empty(0), 0.05)
    assert after == Baseline(3, 2.0)
    assert factors.shape == (0, 12)
