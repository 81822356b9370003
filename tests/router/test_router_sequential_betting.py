"""The betting test's bets: by hand, predictable, fair to the null, and few pairs for a good student."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.sequential import Mixture, quality, sprt
from router.sequential.mixture import crossing, log_mean, mixture_logs
from router.sequential.quality import Spread

Floats = NDArray[np.float64]
LOG_20 = math.log(20)


def by_hand(d: list[float], margin: float, weights: list[float]) -> Floats:
    """The docstring's formula, one pair after the other: log factors (n, 8)."""
    high = min(0.5 / (1 - margin), margin / 0.06)
    low = min(margin / 0.4, high / 2)
    fixed = [low * (high / low) ** (j / 3) for j in range(4)]
    seen, squares, out = 20.0, 20.0 * (0.1 + margin**2), []
    for value, w in zip(d, weights, strict=True):
        aimed = [min(c * margin / (squares / seen), 0.5 / (1 - margin)) for c in (0.8, 0.95, 1.1, 1.25)]
        x = w * (value + margin)
        out.append([math.log(1 + bet * x) for bet in [*aimed, *fixed]])
        seen, squares = seen + w, squares + x * x
    return np.array(out).reshape(len(d), 8)


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.05, 0.07, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("most", [1.0, 0.1])
def test_the_factors_are_the_formula(margin: float, most: float) -> None:
    rng = np.random.default_rng(5)
    d, weights = rng.uniform(-most, most, 40).tolist(), rng.uniform(0.05, 1.0, 40).tolist()
    assert quality.passes(np.array(d), margin, np.array(weights)) == pytest.approx(
        by_hand(d, margin, weights), abs=1e-9
    )
    assert quality.passes(np.array(d), margin) == pytest.approx(by_hand(d, margin, [1.0] * 40), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 60), share=st.floats(0.0, 1.0), weighted=st.booleans())
def test_folding_in_batches_is_folding_at_once(seed: int, n: int, share: float, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    d, w, cut = rng.uniform(-1.0, 1.0, n), rng.uniform(0.05, 1.0, n), round(share * n)
    parts = (w[:cut], w[cut:]) if weighted else (1.0, 1.0)
    first = quality.passes(d[:cut], 0.07, parts[0])
    spread = Spread().fold(d[:cut], 0.07, parts[0])
    second = quality.passes(d[cut:], 0.07, parts[1], spread=spread)
    assert np.concatenate([first, second]) == pytest.approx(quality.passes(d, 0.07, w if weighted else 1.0), abs=1e-12)
    end = spread.fold(d[cut:], 0.07, parts[1])
    whole = Spread().fold(d, 0.07, w if weighted else 1.0)
    assert (end.weight, end.squares) == pytest.approx((whole.weight, whole.squares))


def test_the_spread_sums_weights_and_squared_increments() -> None:
    d, w = np.array([0.0, -1.0, 0.5]), np.array([1.0, 0.5, 0.2])
    start = Spread(10.0, 3.0)
    plain = start.fold(d, 0.07)
    assert (plain.weight, plain.squares) == pytest.approx((13.0, 3.0 + 0.07**2 + 0.93**2 + 0.57**2))
    weighted = start.fold(d, 0.07, w)
    assert (weighted.weight, weighted.squares) == pytest.approx((11.7, 3.0 + 0.07**2 + 0.465**2 + 0.114**2))


def test_a_bet_is_chosen_before_its_pair() -> None:
    """Another last pair changes the last factors alone, and whole paths are the folds of each."""
    d = np.where(np.random.default_rng(1).random((3, 30)) < 0.2, -1.0, 0.0)
    other = d.copy()
    other[:, -1] = 1.0
    a, b = quality.passes(d, 0.07), quality.passes(other, 0.07)
    assert np.array_equal(a[:, :-1], b[:, :-1])
    assert not np.array_equal(a[:, -1], b[:, -1])
    assert np.array_equal(quality.passes(d[1], 0.07), a[1])


@settings(max_examples=100, deadline=None)
@given(
    margin=st.floats(0.01, 0.5),
    below=st.floats(0.0, 1.0),
    spread=st.floats(0.0, 1.0),
    seen=st.floats(0.0, 500.0),
    mean_square=st.floats(0.0, 1.0),
)
def test_no_bet_gains_on_average_from_a_student_at_the_margin_or_below(
    margin: float, below: float, spread: float, seen: float, mean_square: float
) -> None:
    """D two-point with E[D] <= -margin, after any past."""
    mean = -margin - below * (1.0 - margin)
    a, b = mean - spread * (mean + 1.0), mean + spread * (1.0 - mean)
    share = (mean - a) / (b - a) if b > a else 0.0
    past = Spread(seen, seen * mean_square)
    factor_a, factor_b = (np.exp(quality.passes(np.array([v]), margin, spread=past)[0]) for v in (a, b))
    assert (((1 - share) * factor_a + share * factor_b) <= 1.0 + 1e-9).all()


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.07, 0.3])
def test_a_lost_pair_costs_at_most_half_of_a_bets_capital(margin: float) -> None:
    calm = Spread(10_000.0, 0.0)  # the estimate asks for as much as it may
    factors = np.exp(quality.passes(np.array([-1.0]), margin, spread=calm)[0])
    assert factors.min() >= 0.5 - 1e-12
    assert factors[:4] == pytest.approx(np.full(4, 0.5))


def equal_student(rng: np.random.Generator, shape: tuple[int, int], psi: float) -> Floats:
    u = rng.random(shape)
    return np.where(u < psi / 2, 1.0, np.where(u < psi, -1.0, 0.0))


def pairs_to_pass(factors: Floats) -> Floats:
    n = crossing(log_mean(mixture_logs(factors)), LOG_20)
    return np.where(n == 0, np.inf, n)


@pytest.mark.parametrize(("d", "looks"), [(0.05, 1200), (0.02, 3500)])
def test_an_equal_student_needs_less_than_half_again_of_what_the_trinomial_test_needs_that_knows_psi(
    d: float, looks: int
) -> None:
    rng = np.random.default_rng(2)
    ours, walds, grids = [], [], []
    for _ in range(12):
        x = equal_student(rng, (40, looks), 0.095)
        ours.append(pairs_to_pass(quality.passes(x, d)))
        grids.append(pairs_to_pass(quality.passes_on_grid(x, d)))
        walds.append(pairs_to_pass(sprt.paired(x, d, 0.095)))
    median, grid, known = (float(np.median(np.concatenate(n))) for n in (ours, grids, walds))
    assert known < median < 1.5 * known
    assert median < 0.85 * grid


@pytest.mark.parametrize(
    ("d", "rate", "most", "slow"),
    [
        (0.07, 0.01, 159, 216),
        (0.07, 0.033, 331, 611),
        (0.07, 0.04, 500, 1001),
        (0.10, 0.01, 109, 136),
        (0.10, 0.05, 256, 465),
    ],
)
def test_agreement_needs_fewer_pairs_than_on_the_grid(d: float, rate: float, most: int, slow: int) -> None:
    """The grid's known medians and 90th percentiles."""
    rng = np.random.default_rng(3)
    n = pairs_to_pass(quality.passes(np.where(rng.random((500, 1200)) < rate, -1.0, 0.0), d))
    assert np.median(n) < 0.75 * most
    assert np.quantile(n, 0.9) < 0.95 * slow


def test_spells_of_disagreement_that_mislead_the_estimate_promote_nobody() -> None:
    """A student at the margin whose pairs differ seldom for 300, then nearly always for 300, and so on."""
    rng = np.random.default_rng(4)
    psi = np.where(np.arange(2400) % 600 < 300, 0.051, 0.9)
    passed = []
    for _ in range(12):
        u = rng.random((50, 2400))
        x = np.where(u < (psi - 0.05) / 2, 1.0, np.where(u < psi, -1.0, 0.0))
        passed.append(np.isfinite(pairs_to_pass(quality.passes(x, 0.05))))
    assert np.mean(passed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_a_batch_without_its_spread_is_a_first_batch() -> None:
    d = np.array([0.0, -1.0, 0.0])
    assert np.array_equal(quality.passes(d, 0.07), quality.passes(d, 0.07, spread=Spread()))
    later = quality.passes(d, 0.07, spread=Spread(100.0, 60.0))
    assert not np.array_equal(quality.passes(d, 0.07), later)
    assert Mixture().fold(later).n == 3
