"""Confidence sequences for display: by hand, in batches, and with the coverage that they promise."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from router.sequential import normal_mixture
from router.sequential.intervals import Interval
from router.sequential.normal_mixture import Moments

Floats = NDArray[np.float64]


def by_hand(x: Floats, alpha: float) -> tuple[float, float]:
    """The formula of the docstring, one value after the other."""
    low, high = 0.0, 1.0
    total, spread, mean = 0.0, 0.0, 0.5
    bets = staked = paid = 0.0
    for i, value in enumerate(x, start=1):
        s = (0.25 + spread) / i
        bet = min(0.5, math.sqrt(2 * math.log(2 / alpha) / (s * i * math.log(1 + i))))
        bets, staked = bets + bet, staked + bet * value
        paid += 4 * (value - mean) ** 2 * (-math.log(1 - bet) - bet) / 4
        total += value
        mean = (0.5 + total) / (i + 1)
        spread += (value - mean) ** 2
        width = (math.log(2 / alpha) + paid) / bets
        low, high = max(low, staked / bets - width), min(high, staked / bets + width)
    return low, high


@pytest.mark.parametrize("seed", range(12))
def test_the_fold_is_the_formula_in_any_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, alpha = int(rng.integers(2, 300)), float(rng.uniform(0.01, 0.2))
    x, cut = rng.beta(0.3, 0.3 + seed, n), int(rng.integers(1, n))
    whole = Interval().fold(x, alpha)
    assert (whole.low, whole.high) == pytest.approx(by_hand(x, alpha), abs=1e-9)
    assert whole.n == n
    halves = Interval().fold(x[:cut], alpha).fold(x[cut:], alpha)
    assert halves.n == n
    assert halves.bounds() == pytest.approx(whole.bounds(), abs=1e-9)


def test_a_range_of_its_own_is_scaled_to_and_back() -> None:
    x = np.random.default_rng(1).random(500)
    unit = Interval().fold(x, 0.05)
    wide = Interval().fold(4.0 * x - 3.0, 0.05, least=-3.0, most=1.0)
    assert wide.bounds(least=-3.0, most=1.0) == pytest.approx((4 * unit.low - 3, 4 * unit.high - 3))
    assert Interval().bounds(least=-3.0, most=1.0) == (-3.0, 1.0)


@pytest.mark.parametrize("rate", [0.03, 0.4])
def test_the_mean_is_outside_at_any_look_at_most_alpha_of_the_time(rate: float) -> None:
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(400):
        interval = Interval().fold((rng.random(1500) < rate) * 1.0, 0.1)
        missed += not interval.low <= rate <= interval.high
    assert missed <= 40


def test_it_narrows_with_values_and_with_agreement() -> None:
    rng = np.random.default_rng(3)

    def width(rate: float, n: int) -> float:
        low, high = Interval().fold(np.where(rng.random(n) < rate, -1.0, 0.0), 0.05, least=-1.0, most=0.0).bounds()
        return high - low

    assert width(0.5, 4000) < 0.6 * width(0.5, 1000)
    assert width(0.02, 1000) < 0.5 * width(0.5, 1000)
    assert width(0.02, 5000) < 0.02


def test_nothing_folded_changes_nothing() -> None:
    some = Interval().fold(np.array([0.2, 0.9]), 0.05)
    assert some.fold(np.empty(0), 0.05) is some


@pytest.mark.parametrize("value", [-1.01, 0.01])
def test_values_outside_the_range_are_refused(value: float) -> None:
    values = sorted([-0.5, value])
    with pytest.raises(ValueError, match=f"values must be between -1 and 0; got {values[0]} to {values[1]}"):
        Interval().fold(np.array([-0.5, value]), 0.05, least=-1.0, most=0.0)


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="values must be between 0 and 1; got nan"):
        Interval().fold(np.array([0.5, math.nan]), 0.05)


# --- Normal mixtures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.01, 0.05])
@pytest.mark.parametrize("v", [20.0, 100.0, 900.0])
def test_at_its_bound_a_mixture_is_one_over_alpha(alpha: float, v: float) -> None:
    rho = normal_mixture.best_rho(100.0, alpha)
    two, one = normal_mixture.bound(v, alpha, rho), normal_mixture.bound_one_sided(v, alpha, rho)
    assert normal_mixture.log_mixture(two, v, rho) == pytest.approx(math.log(1 / alpha))
    assert normal_mixture.log_mixture_one_sided(one, v, rho) == pytest.approx(math.log(1 / alpha))
    assert one < two


def test_the_mixtures_are_the_mixtures() -> None:
    """Against the integral over b ~ N(0, 1/rho) of exp(b s - b^2 v / 2); one-sided over b > 0, doubled."""
    s, v, rho = 7.0, 40.0, 9.0
    b = np.linspace(-4.0, 4.0, 160_001)
    values = np.exp(b * s - b * b * v / 2) * np.exp(-rho * b * b / 2) * math.sqrt(rho / (2 * math.pi))
    step = b[1] - b[0]
    assert normal_mixture.log_mixture(s, v, rho) == pytest.approx(math.log(values.sum() * step))
    positive = 2 * (values[b > 0].sum() + values[b == 0].sum() / 2) * step
    assert normal_mixture.log_mixture_one_sided(s, v, rho) == pytest.approx(math.log(positive), abs=1e-6)


def test_rho_by_hand_and_bounds_below_one() -> None:
    rho = normal_mixture.best_rho(100.0, 0.05)
    assert rho == pytest.approx(100.0 / (2 * math.log(20) + math.log(1 + 2 * math.log(20))))
    small = normal_mixture.bound_one_sided(0.01, 0.05, rho / 1e4)
    assert small < 1.0
    assert small == pytest.approx(normal_mixture.bound_one_sided(100.0, 0.05, rho) / 100.0)  # s scales as sqrt(v)


def test_rho_makes_the_bound_tightest_where_it_was_asked_to() -> None:
    best = normal_mixture.best_rho(500.0, 0.05)
    at_best = normal_mixture.bound(500.0, 0.05, best)
    assert at_best <= min(normal_mixture.bound(500.0, 0.05, best * f) for f in (0.5, 2.0))
    assert at_best == pytest.approx(min(normal_mixture.bound(500.0, 0.05, best * f) for f in (0.9, 1.0, 1.1)), rel=1e-3)


def test_moments_in_batches_are_moments_at_once() -> None:
    x = np.random.default_rng(4).normal(0.3, 2.0, 100)
    whole = Moments().fold(x)
    parts = Moments().fold(x[:37]).fold(x[37:])
    assert parts.n == whole.n == 100
    assert (parts.total, parts.squares) == pytest.approx((x.sum(), (x**2).sum()))


def test_the_asymptotic_interval_is_the_bound_about_the_mean() -> None:
    x = np.random.default_rng(5).normal(0.3, 2.0, 3000)
    interval = Moments().fold(x).interval(0.05)
    assert interval is not None
    variance = float(x.var())
    rho = normal_mixture.best_rho(2000 * variance, 0.05)
    width = normal_mixture.bound(3000 * variance, 0.05, rho) / 3000
    assert interval == pytest.approx((x.mean() - width, x.mean() + width))


def test_no_interval_is_shown_before_30_values_or_without_variance() -> None:
    x = np.arange(30.0)
    assert Moments().fold(x[:29]).interval(0.05) is None
    assert Moments().fold(x).interval(0.05) is not None
    assert Moments().fold(np.ones(50)).interval(0.05) is None
    assert Moments().fold(x / 100.0).interval(0.05) is not None


def test_the_asymptotic_interval_covers_at_all_looks_from_30_on() -> None:
    rng = np.random.default_rng(6)
    n = np.arange(1.0, 2001.0)
    missed = 0
    for _ in range(400):
        x = rng.exponential(1.0, 2000)
        mean, variance = np.cumsum(x) / n, np.cumsum(x * x) / n - (np.cumsum(x) / n) ** 2
        looks = range(29, 2000, 15)
        for i in looks:
            rho = normal_mixture.best_rho(2000 * variance[i], 0.05)
            if abs(mean[i] - 1.0) > normal_mixture.bound(n[i] * variance[i], 0.05, rho) / n[i]:
                missed += 1
                break
    assert missed <= 0.05 * 400
