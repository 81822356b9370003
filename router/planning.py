"""How long a rollout's tests take, by simulating the tests themselves on a student that is only assumed.

Nothing here decides anything. Each test runs on PATHS independent streams of what the student is expected to do, with
the boundary and the futility rules that a rollout has; what comes out is the number of observations until its end on
each path, so that medians, 90th percentiles and the probability to pass are read off.

Assumes independent observations. Scores in between are simulated as all or nothing with the same mean: among streams
of one mean these take a betting test longest (Jensen: log(1 + l x) is concave in x), so plans err on the late side.

The same seed is used for the same test at every margin and coverage, so that figures of one plan compare: along each
path a wider margin never takes longer.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from router import rollout_tests
from router.policy import LatencyPolicy
from router.policy_quality import QualityPolicy
from router.sequential import error_rate, quality, slo, sprt
from router.sequential.mixture import Floats, grid, log_factors, log_mean

PATHS = 400  # the standard error of a median is then about 4% of the spread: far below what the assumptions are worth
HORIZON = 20_000  # observations after which a simulated test is given up, whatever n_max says
CHUNK = 256

Counts = NDArray[np.int64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
Factors = Callable[[Floats], Floats]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the student is assumed to do. `loss`, `win`: the share of pairs with D = -1 and with D = 1. `slower`: of
    pairs in which its time is above (1 + margin) times the teacher's. `slow`: of answers above the SLO. `failing`: of
    requests."""

    loss: float
    win: float = 0.0
    slower: float = 0.25
    slow: float = 0.0
    failing: float = 0.0


class Ended(msgspec.Struct, frozen=True):
    """Each path's end. `n`: observations until then; `passed`: whether the test passed, or was given up."""

    n: Counts
    passed: NDArray[np.bool_]

    @property
    def to_pass(self) -> Floats:
        """Observations until the test passed; inf where it did not."""
        return np.where(self.passed, self.n, np.inf)


@lru_cache(maxsize=256)
def quality_pairs(policy: QualityPolicy, expected: Expected, alpha: float, *, seed: int = 1) -> Ended:
    """Pairs until the quality test passes, is proven worse than the margin, or is given up."""
    return run(
        lambda d: rollout_tests.quality_passes(d, policy),
        lambda rng, shape: differences(rng, shape, expected),
        log_boundary=-math.log(alpha),
        most=policy.n_max,
        seed=seed,
        fails=lambda d: quality.fails(d, policy.margin),
        floor=sprt.boundaries(alpha)[0] if policy.test == "sprt" else -math.inf,
    )


@lru_cache(maxsize=256)
def accepted_pairs(max_risk: float, risk: float, alpha: float, most: int, *, seed: int = 2) -> Ended:
    """Pairs above a threshold of confidence until it is certified (see `sequential.selective`), where the mean loss
    of what it accepts is `risk`. Given up after `most`."""
    return run(
        lambda loss: log_factors(max_risk - loss, grid(0.01, 0.9, 1.0 - max_risk)),
        lambda rng, shape: (rng.random(shape) < risk).astype(float),
        log_boundary=-math.log(alpha),
        most=most,
        seed=seed,
        fails=lambda loss: log_factors(loss - max_risk, grid(0.01, 0.9, max_risk)),
    )


@lru_cache(maxsize=256)
def latency_pairs(policy: LatencyPolicy, expected: Expected, alpha: float, most: int, *, seed: int = 3) -> Ended:
    """Pairs of times until the paired latency test passes, or is given up."""
    slower, faster = 2.0 + policy.margin, 0.5  # in units of the teacher's time

    def factors(student: Floats) -> Floats:
        return rollout_tests.latency_passes(np.stack([student, np.ones_like(student)], axis=-1), policy)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        return np.where(rng.random(shape) < expected.slower, slower, faster)

    return run(factors, draw, log_boundary=-math.log(alpha), most=most, seed=seed)


@lru_cache(maxsize=256)
def slo_blocks(quantile: float, expected: Expected, alpha: float, per_block: float, most: int, *, seed: int) -> Ended:
    """Time blocks with a student request until one step's SLO test passes; `per_block`: requests in the mean block.

    `alpha`: of this step. Arrivals are Poisson. Blocks are never given up before `most`.
    """
    return run(
        lambda share: slo.passes(share, 1.0 - quantile),
        lambda rng, shape: slow_shares(rng, shape, per_block, expected.slow),
        log_boundary=-math.log(alpha),
        most=most,
        seed=seed,
        hopeless=False,
    )


@lru_cache(maxsize=256)
def clean_requests(promote_below: float, expected: Expected, alpha: float, most: int, *, seed: int = 4) -> Ended:
    """Student requests until the error test passes."""
    return run(
        lambda errors: error_rate.passes(errors, promote_below),
        lambda rng, shape: (rng.random(shape) < expected.failing).astype(float),
        log_boundary=-math.log(alpha),
        most=most,
        seed=seed,
        hopeless=False,
    )


def differences(rng: np.random.Generator, shape: tuple[int, int], expected: Expected) -> Floats:
    """D of pairs."""
    u = rng.random(shape)
    return (u >= 1.0 - expected.win).astype(float) - (u < expected.loss)


def slow_shares(rng: np.random.Generator, shape: tuple[int, int], per_block: float, slow: float) -> Floats:
    """V_b of blocks with at least one request. The time of a block's first request is drawn given that there is one;
    the rest of the block then has Poisson arrivals, which needs no rejection however empty blocks are."""
    first = -np.log1p(-rng.random(shape) * -math.expm1(-per_block))
    total = 1 + rng.poisson(np.maximum(per_block - first, 0.0))
    return np.asarray(rng.binomial(total, slow) / total)


def run(
    passes: Factors,
    draw: Draw,
    *,
    log_boundary: float,
    most: int,
    seed: int,
    fails: Factors | None = None,
    floor: float = -math.inf,
    hopeless: bool = True,
) -> Ended:
    """PATHS streams through a test of log factors until it passes, or is given up: after `most` observations; where
    `fails`, the opposite test, reaches the boundary; where its own log value is at `floor` or below; and, with
    `hopeless`, where after a fifth of `most` its present rate would need more than `most`."""
    rng = np.random.default_rng(seed)
    given_up = most
    most = min(most, HORIZON)
    n, passed = np.full(PATHS, most), np.zeros(PATHS, dtype=bool)
    active, done = np.arange(PATHS), 0
    logs: Floats | None = None
    against: Floats | None = None
    while active.size and done < most:
        values = draw(rng, (PATHS, min(CHUNK, most - done)))[active]
        logs, good = _advance(passes, values, logs)
        count = done + 1 + np.arange(values.shape[1])
        out = good <= floor
        if hopeless:
            out |= (count >= given_up // 5) & (good / count * given_up < log_boundary)
        if fails:
            against, bad = _advance(fails, values, against)
            out |= bad >= log_boundary
        won = good >= log_boundary
        ends = won | out
        over = ends.any(axis=1)
        at = ends.argmax(axis=1)
        n[active[over]] = count[at[over]]
        passed[active[over]] = won[over, at[over]]
        active, logs = active[~over], logs[~over]
        against = against[~over] if against is not None else None
        done += values.shape[1]
    n.flags.writeable = passed.flags.writeable = False  # results are kept, and given to several askers
    return Ended(n, passed)


def _advance(factors: Factors, values: Floats, start: Floats | None) -> tuple[Floats, Floats]:
    """The log capitals at the end (paths, bets), and the log value after each observation (paths, n)."""
    found = factors(values.reshape(-1))
    path = np.cumsum(found.reshape(*values.shape, -1), axis=1)
    if start is not None:
        path += start[:, None, :]
    return path[:, -1, :], log_mean(path)
