"""How long a rollout's tests take, by simulating the tests themselves on a student that is only assumed.

Nothing here decides anything. Each test runs on PATHS independent streams of what the student is expected to do, with
the boundary and the futility rules that a rollout has; what comes out is the number of observations until its end on
each path, so that medians, 90th percentiles and the probability to pass are read off.

Assumes independent observations. Scores in between are simulated as all or nothing with the same mean: among streams
of one mean these take a betting test longest (Jensen: log(1 + l x) is concave in x), so plans err on the late side.

The same seed is used for the same test at every margin and coverage, so that the figures of one plan compare.
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
from router.sequential.mixture import Floats, crossing, log_factors, log_mean, mixture_logs
from router.sequential.threshold import bets

PATHS = 400  # the standard error of a median is then about 4% of the spread: far below what the assumptions are worth
HORIZON = 20_000  # observations after which a simulated test is given up, whatever n_max says
FIRST = 128  # observations that are looked at first; where a path has not ended, twice as many, from its start
AT_ONCE = 20_000  # observations in one go: what they need stays in a processor's cache

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
    of what it accepts is `risk`, and alpha is its own. Given up after `most`."""
    return run(
        lambda loss: log_factors(max_risk - loss, bets(max_risk)),
        lambda rng, shape: (rng.random(shape) < risk).astype(float),
        log_boundary=-math.log(alpha),
        most=most,
        seed=seed,
        hopeless=False,
    )


@lru_cache(maxsize=256)
def latency_pairs(policy: LatencyPolicy, slower: float, alpha: float, most: int, *, seed: int = 3) -> Ended:
    """Pairs of times until the paired latency test passes, or is given up, where the student is too slow in a share
    `slower` of them."""
    above, below = 2.0 + policy.margin, 0.5  # in units of the teacher's time

    def factors(student: Floats) -> Floats:
        pairs = np.stack([student.reshape(-1), np.ones(student.size)], axis=-1)
        return rollout_tests.latency_passes(pairs, policy).reshape(*student.shape, -1)

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        return np.where(rng.random(shape) < slower, above, below)

    return run(factors, draw, log_boundary=-math.log(alpha), most=most, seed=seed)


@lru_cache(maxsize=256)
def slo_blocks(quantile: float, slow: float, alpha: float, per_block: float, most: int, *, seed: int) -> Ended:
    """Time blocks with a student request until one step's SLO test passes; `per_block`: requests in the mean block.

    `slow`: the share of its answers above the SLO. `alpha`: of this step. Arrivals are Poisson. Blocks are never given
    up before `most`.
    """
    return run(
        lambda share: slo.passes(share, 1.0 - quantile),
        lambda rng, shape: slow_shares(rng, shape, per_block, slow),
        log_boundary=-math.log(alpha),
        most=most,
        seed=seed,
        hopeless=False,
    )


@lru_cache(maxsize=256)
def clean_requests(promote_below: float, failing: float, alpha: float, most: int, *, seed: int = 4) -> Ended:
    """Student requests until the error test passes."""
    if failing == 0.0:  # all paths are one
        path = log_mean(mixture_logs(error_rate.passes(np.zeros(min(most, HORIZON)), promote_below)))
        at = int(crossing(path, -math.log(alpha)))
        return Ended(np.full(PATHS, at or most), np.full(PATHS, at > 0))
    return run(
        lambda errors: error_rate.passes(errors, promote_below),
        lambda rng, shape: (rng.random(shape) < failing).astype(float),
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
    `hopeless`, where after a fifth of `most` its present rate would need more than `most`.

    `passes` and `fails` get whole streams (paths, n), since a test's bets may depend on what came before."""
    rng = np.random.default_rng(seed)
    needed, given_up = log_boundary, most
    most = min(most, HORIZON)
    n, passed = np.full(PATHS, most), np.zeros(PATHS, dtype=bool)
    active, values = np.arange(PATHS), draw(rng, (PATHS, min(FIRST, most)))
    while True:
        count = 1 + np.arange(values.shape[1])
        judged = hopeless and count[-1] >= given_up // 5
        for rows in _parts(active, values.shape[1]):
            good = log_values(passes(values[rows]), -math.inf if judged else max(needed, floor))
            won, out = good >= needed, good <= floor
            if judged:
                out |= (count >= given_up // 5) & (good / count * given_up < needed)
            if fails:
                out |= log_values(fails(values[rows]), needed) >= needed
            ended = (won | out).any(axis=1)
            at = (won | out).argmax(axis=1)
            n[rows[ended]] = count[at[ended]]
            passed[rows[ended]] = won[ended, at[ended]]
            active = np.setdiff1d(active, rows[ended], assume_unique=True)
        if not active.size or values.shape[1] == most:
            break
        values = np.concatenate([values, draw(rng, (PATHS, min(values.shape[1], most - values.shape[1])))], axis=1)
    n.flags.writeable = passed.flags.writeable = False  # results are kept, and given to several askers
    return Ended(n, passed)


def log_values(factors: Floats, least: float) -> Floats:
    """The log of the mean capital after each observation, from log factors (paths, n, bets); a value below `least` may
    be given as any below it. The mean is never above the best bet, so that most need no exponentials."""
    logs = mixture_logs(factors)
    found = logs.max(axis=-1)
    near = found >= least
    found[near] = log_mean(logs[near])
    return np.asarray(found)


def _parts(paths: Counts, length: int) -> list[Counts]:
    return np.array_split(paths, math.ceil(paths.size * length / AT_ONCE))
