"""Known answers: Wald's tables exactly, medians and levels of the betting tests, delays and false alarms of detectors.

Where a path is a count of losses (D in {-1, 0}) the numbers are exact, by dynamic programming over the count; else they
are simulated. Figures are reproduced within 10%, unless a test says otherwise.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from router.sequential import normal_mixture, quality, sprt
from router.sequential.mixture import crossing, grid, log_factors, log_mean

Floats = NDArray[np.float64]

WALD_LOW, WALD_HIGH = math.log(0.1 / 0.95), math.log(0.9 / 0.05)  # alpha = .05, beta = .1


# --- Wald's tests -----------------------------------------------------------------------------------------------------


def steps(p0: float, p1: float) -> tuple[float, float]:
    """What a success and a failure add."""
    success, failure = sprt.binary(np.array([1.0, 0.0]), p0, p1)[:, 0]
    return float(success), float(failure)


def exact(p: float, success: float, failure: float, low: float, high: float) -> tuple[float, float]:
    """(expected number of observations, probability of ending at the upper boundary), by DP over the failures."""
    alive = np.zeros(2000)
    alive[0] = 1.0
    k = np.arange(alive.size)
    mean = upper = 0.0
    for n in range(1, 40_000):
        mean += alive.sum()
        alive[1:] = alive[1:] * p + alive[:-1] * (1.0 - p)
        alive[0] *= p
        value = (n - k) * success + k * failure
        upper += alive[value >= high].sum()
        alive[(value >= high) | (value <= low)] = 0.0
        if alive.sum() < 1e-12:
            return mean, upper
    raise AssertionError("the test has not ended")


def wald_asn(p: float, success: float, failure: float, low: float, high: float, passing: float) -> float:
    """Wald's approximation, without overshoot."""
    return (passing * high + (1.0 - passing) * low) / (p * success + (1.0 - p) * failure)


def test_walds_boundaries_and_the_strict_one() -> None:
    assert (pytest.approx(2.8904, abs=1e-4), pytest.approx(-2.2513, abs=1e-4)) == (WALD_HIGH, WALD_LOW)
    low, high = sprt.boundaries(0.05)
    assert (high, low) == (pytest.approx(2.9957, abs=1e-4), pytest.approx(-2.2513, abs=1e-4))
    assert sprt.boundaries(0.02, 0.03)[0] == pytest.approx(math.log(0.03 / 0.98))


@pytest.mark.parametrize(
    ("d", "wald", "asn", "worst_at", "alpha", "beta", "fixed"),
    [
        (0.05, (96.6, 173.6, 142.2), (108.1, 196.8, 149.2), 0.931, 0.0497, 0.079, 239),
        (0.02, (529.7, 908.9, 701.0), (559.4, 967.1, 717.3), 0.942, 0.0501, 0.089, 1221),
    ],
)
def test_walds_binary_test_exactly(
    d: float,
    wald: Sequence[float],
    asn: Sequence[float],
    worst_at: float,
    alpha: float,
    beta: float,
    fixed: int,
) -> None:
    p0, p1 = 0.95 - d, 0.95
    success, failure = steps(p0, p1)
    approximate = [
        wald_asn(p0, success, failure, WALD_LOW, WALD_HIGH, 0.05),
        # at the slope the walk has no drift: -A B / E[step^2]
        -WALD_LOW * WALD_HIGH / (-success * failure),
        wald_asn(p1, success, failure, WALD_LOW, WALD_HIGH, 0.9),
    ]
    assert approximate == pytest.approx(wald, abs=0.06)
    found = [exact(p, success, failure, WALD_LOW, WALD_HIGH) for p in (p0, worst_at, p1)]
    assert [n for n, _ in found] == pytest.approx(asn, rel=1e-3)
    assert found[0][1] == pytest.approx(alpha, abs=6e-5)
    assert 1.0 - found[2][1] == pytest.approx(beta, abs=6e-4)
    near = [exact(p, success, failure, WALD_LOW, WALD_HIGH)[0] for p in (worst_at - 0.002, worst_at + 0.002)]
    assert max(near) < found[1][0]
    spread = stats.norm.isf(0.05) * math.sqrt(p0 * (1 - p0)) + stats.norm.isf(0.1) * math.sqrt(p1 * (1 - p1))
    assert round((spread / d) ** 2) == fixed


def test_the_strict_boundary_holds_alpha_where_walds_does_not() -> None:
    """d = .02: Wald's boundary gives .0501; ln(1/alpha) stays under .05, with the lower boundary and without."""
    success, failure = steps(0.93, 0.95)
    low, high = sprt.boundaries(0.05)
    assert exact(0.93, success, failure, WALD_LOW, WALD_HIGH)[1] > 0.05
    assert exact(0.93, success, failure, low, high)[1] < 0.046


def test_walds_textbook_case_of_lots() -> None:
    """p0 = .1, p1 = .3, alpha = .02, beta = .03: acceptance lines and expected numbers."""
    success, failure = steps(0.1, 0.3)
    per = success - failure
    low, high = math.log(0.03 / 0.98), math.log(0.97 / 0.02)
    assert (low / per, high / per) == (pytest.approx(-2.5826, abs=1e-4), pytest.approx(2.8754, abs=1e-4))
    assert -failure / per == pytest.approx(0.18617, abs=1e-5)
    assert wald_asn(0.1, success, failure, low, high, 0.02) == pytest.approx(28.70, abs=0.01)
    assert wald_asn(0.3, success, failure, low, high, 0.97) == pytest.approx(23.82, abs=0.01)


@pytest.mark.parametrize(("d", "equal", "boundary"), [(0.05, 154, 144), (0.02, 1103, 940)])
def test_the_paired_trinomial_tests_expected_pairs(d: float, equal: float, boundary: float) -> None:
    psi = 0.095
    win, loss, tie = sprt.paired(np.array([1.0, -1.0, 0.0]), d, psi)[:, 0]
    assert (win, loss, tie) == (
        pytest.approx(math.log(psi / (psi - d))),
        pytest.approx(math.log(psi / (psi + d))),
        pytest.approx(0.0),
    )
    under_h1 = psi / 2 * (win + loss)
    under_h0 = (psi - d) / 2 * win + (psi + d) / 2 * loss
    assert (0.9 * WALD_HIGH + 0.1 * WALD_LOW) / under_h1 == pytest.approx(equal, abs=0.6)
    assert (0.05 * WALD_HIGH + 0.95 * WALD_LOW) / under_h0 == pytest.approx(boundary, abs=0.6)


# --- The betting test on a grid of 12 bets ----------------------------------------------------------------------------


def equal_student(rng: np.random.Generator, shape: tuple[int, int], psi: float) -> Floats:
    u = rng.random(shape)
    return np.where(u < psi / 2, 1.0, np.where(u < psi, -1.0, 0.0))


def median_pairs(test: Callable[[Floats], Floats], psi: float, looks: int, paths: int = 800) -> float:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(paths // 50):
        n = crossing(log_mean(np.cumsum(test(equal_student(rng, (50, looks), psi)), axis=-2)), math.log(20))
        found += [looks + 1 if one == 0 else int(one) for one in n]
    return float(np.median(found))


@pytest.mark.parametrize(
    ("d", "psi", "median"), [(0.05, 0.05, 252), (0.05, 0.095, 321), (0.02, 0.05, 919), (0.02, 0.095, 1755)]
)
def test_median_pairs_of_an_equal_student_on_the_grid(d: float, psi: float, median: float) -> None:
    found = median_pairs(lambda x: quality.passes_on_grid(x, d), psi, 600 if d == 0.05 else 2600)
    assert found == pytest.approx(median, rel=0.10)


def passing_losses(bets: Floats, d: float, looks: int, log_boundary: float) -> NDArray[np.int64]:
    """For each n up to `looks`, the most losses with which the test passes there; -1 where none does.

    With k losses the capital rises with every tie, so that k losses pass from some n on: found by bisection.
    """
    tie, loss = log_factors(np.array([d, d - 1.0]), bets)
    k = np.arange(int(d * looks) + 1.0)
    low, high = k.copy(), np.full(k.size, 2.0 * looks)
    while (high - low > 1.0).any():
        middle = np.floor((low + high) / 2.0)
        passes = log_mean((middle - k)[:, None] * tie + k[:, None] * loss) >= log_boundary
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    return np.searchsorted(high, np.arange(1.0, looks + 1.0), side="right") - 1


def passed_by(rate: float, most: NDArray[np.int64]) -> Floats:
    """P(passed at or before each look), exactly, for independent losses of that rate."""
    alive = np.zeros(int(most.max()) + 1)  # more losses than the most can't pass any more
    alive[0] = 1.0
    out = np.zeros(len(most))
    for i, top in enumerate(most):
        alive[1:] = alive[1:] * (1.0 - rate) + alive[:-1] * rate
        alive[0] *= 1.0 - rate
        out[i] = alive[: top + 1].sum()
        alive[: top + 1] = 0.0
    return np.cumsum(out)


AGREEMENT = [
    (0.07, 0.01, 159, 216),
    (0.07, 0.02, 216, 312),
    (0.07, 0.033, 331, 611),
    (0.07, 0.04, 500, 1001),
    (0.07, 0.05, 1087, None),
    (0.10, 0.01, 109, None),
    (0.10, 0.02, 122, None),
    (0.10, 0.033, 163, None),
    (0.10, 0.04, 189, None),
    (0.10, 0.05, 256, None),
]


@pytest.fixture(scope="module")
def passing() -> dict[float, NDArray[np.int64]]:
    return {
        d: passing_losses(grid(0.01, 0.5, 1.0 - d), d, 20_000 if d == 0.07 else 3000, math.log(20)) for d in (0.07, 0.1)
    }


@pytest.mark.parametrize(("d", "rate", "median", "slow"), AGREEMENT)
def test_pairs_to_pass_by_disagreement(
    passing: dict[float, NDArray[np.int64]], d: float, rate: float, median: int, slow: int | None
) -> None:
    share = passed_by(rate, passing[d][:6000])
    assert int(np.argmax(share >= 0.5)) + 1 == pytest.approx(median, rel=0.10)
    if slow:
        assert int(np.argmax(share >= 0.9)) + 1 == pytest.approx(slow, rel=0.10)


def test_false_promotions_at_the_boundary_in_20_000_looks(passing: dict[float, NDArray[np.int64]]) -> None:
    assert passed_by(0.07, passing[0.07])[-1] == pytest.approx(0.026, abs=0.0026)


# --- E-detectors ------------------------------------------------------------------------------------------------------

CHANGES = (0.12, 0.17, 0.27, 0.50, 1.0)
CUSUMS = {
    1000: ((432, 179, 80, 35, 17), 0.045),
    3000: ((506, 204, 90, 39, 19), 0.020),
    10_000: ((584, 232, 102, 44, 21), 0.004),
}
SR = ((454, 198, 90, 40, 19), 0.091)


def detectors(m: Floats, lost: NDArray[np.bool_], *, sr: bool) -> Floats:
    """The next value of every path's 12 bets: max(M, 1) f, or Shiryaev and Roberts' (M + 1) f."""
    table = np.exp(quality.watch(np.array([0.0, -1.0]), 0.07))
    return np.asarray((m + 1.0 if sr else np.maximum(m, 1.0)) * table[lost.astype(int)])


def delays(rate: float, thresholds: Sequence[float], *, sr: bool, paths: int = 600) -> list[float]:
    rng = np.random.default_rng(17)
    m = np.full((paths, 12), 0.0 if sr else 1.0)
    for _ in range(5000):
        m = detectors(m, rng.random(paths) < 0.033, sr=sr)
    found = np.zeros((len(thresholds), paths))
    for n in range(1, 3000):
        m = detectors(m, rng.random(paths) < rate, sr=sr)
        value = m.mean(axis=1)
        for row, c in zip(found, thresholds, strict=True):
            row[(row == 0) & (value >= c)] = n
        if found.all():
            break
    return [float(np.median(row)) for row in found]


def false_alarms(thresholds: Sequence[float], *, sr: bool, paths: int) -> list[int]:
    rng = np.random.default_rng(18)
    m, highest = np.full((paths, 12), 0.0 if sr else 1.0), np.zeros(paths)
    for _ in range(20_000):
        m = detectors(m, rng.random(paths) < 0.07, sr=sr)
        highest = np.maximum(highest, m.mean(axis=1))
    return [int((highest >= c).sum()) for c in thresholds]


@pytest.mark.parametrize("change", range(5))
def test_detection_delays_after_5_000_good_pairs(change: int) -> None:
    assert delays(CHANGES[change], list(CUSUMS), sr=False) == pytest.approx(
        [d[change] for d, _ in CUSUMS.values()], rel=0.10
    )
    assert delays(CHANGES[change], [100_000.0], sr=True) == pytest.approx([SR[0][change]], rel=0.10)


def consistent(count: int, paths: int, share: float) -> bool:
    """Whether a count of `paths` is one that a true share gives in 999 of 1,000 runs."""
    low, high = stats.binom.ppf([0.0005, 0.9995], paths, share)
    return bool(low <= count <= high)


def test_false_alarms_in_20_000_pairs_at_the_boundary() -> None:
    paths = 1000
    counts = false_alarms(list(CUSUMS), sr=False, paths=paths)
    for count, (_, share) in zip(counts, CUSUMS.values(), strict=True):
        assert consistent(count, paths, share), (count / paths, share)
    (count,) = false_alarms([100_000.0], sr=True, paths=paths)
    assert consistent(count, paths, SR[1]), count / paths
    assert count > 3 * counts[1]  # the same delays as c = 3,000, and 4 to 8 times the false alarms


# --- Normal mixtures --------------------------------------------------------------------------------------------------


def test_published_values_of_the_normal_mixtures() -> None:
    """ln M at s = 10, v = 100, and the bounds at v = 100, alpha = .05; rho for v_opt = 100 (one-sided: at 2 alpha)."""
    rho = normal_mixture.best_rho(100.0, 0.05)
    assert normal_mixture.log_mixture(10.0, 100.0, rho) == pytest.approx(-0.6510052, abs=1e-6)
    assert normal_mixture.bound(100.0, 0.05, rho) == pytest.approx(30.35209, abs=1e-5)
    rho = normal_mixture.best_rho(100.0, 0.10)
    assert normal_mixture.log_mixture_one_sided(10.0, 100.0, rho) == pytest.approx(-0.0650239, abs=1e-6)
    assert normal_mixture.bound_one_sided(100.0, 0.05, rho) == pytest.approx(27.66071, abs=1e-5)
