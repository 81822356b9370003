"""How long harm lasts until the e-detectors see it: pairs until the alarm, and the answers that users get meanwhile."""

import math
from functools import lru_cache

import numpy as np

from router.evidence_update import DROP
from router.planning import PATHS, Expected, Factors, differences
from router.policy import RoutePolicy
from router.sequential import quality
from router.sequential.mixture import Floats, cusum_logs, grid, log_factors, log_mean

GOOD = 200  # pairs before the harm; a CUSUM has forgotten its start by then
CHUNK = 64  # pairs of all paths in one go
MOST = 4000  # pairs within which harm is seen, or it is said that it is not
POINTS = (0.05, 0.20)  # how much worse than the margin the student becomes


def worse(policy: RoutePolicy, expected: Expected, points: float) -> Expected:
    """The student after a change to `points` below the margin (with `selective`: above the risk); wins and losses
    that cancel are as many as before."""
    borne = policy.selective.max_risk if policy.selective else policy.quality.margin
    loss = min(borne + points + expected.win, 1.0)
    return Expected(loss=loss, win=min(expected.win, 1.0 - loss))


def wrong() -> Expected:
    """Every answer is wrong, and the engine doesn't know."""
    return Expected(loss=1.0)


@lru_cache(maxsize=64)
def pairs_to_alarm(policy: RoutePolicy, good: Expected, bad: Expected, *, seed: int = 5) -> Floats:
    """Pairs after the change until the first alarm of quality, on each path; inf where not within MOST."""
    rng = np.random.default_rng(seed)
    before = differences(rng, (PATHS, GOOD), good)
    after = differences(rng, (PATHS, MOST), bad)
    boundary = math.log(policy.rollout.detector_threshold)
    found = [_delay(watch, before, after, boundary) for watch in _watches(policy, good)]
    first = np.asarray(np.minimum.reduce(found))
    first.flags.writeable = False  # kept, and given to several askers
    return first


def _watches(policy: RoutePolicy, good: Expected) -> list[Factors]:
    """The detector of answers worse than is borne, and the one of a fall below the level at promotion."""
    if policy.selective:
        risk = policy.selective.max_risk
        return [lambda d: log_factors(-d - risk, grid(0.01, 0.9, risk))]
    level = good.loss - good.win
    return [
        lambda d: quality.watch(d, policy.quality.margin),
        lambda d: quality.watch(d, min(level + DROP, 0.99)),
    ]


def _delay(watch: Factors, before: Floats, after: Floats, boundary: float) -> Floats:
    """Pairs until the boundary, counted from the change. Paths are taken one block of columns at a time, so that a
    detector that fires within 50 pairs costs no 4,000."""
    logs = cusum_logs(watch(before))[:, -1, :]
    found = np.full(len(after), np.inf)
    active, done = np.arange(len(after)), 0
    while active.size and done < after.shape[1]:
        part = watch(after[active, done : done + CHUNK])
        sums = np.cumsum(part, axis=1)
        floor = np.concatenate([-np.maximum(logs, 0.0)[:, None, :], sums[:, :-1, :]], axis=1)
        path = sums - np.minimum.accumulate(floor, axis=1)
        hit = log_mean(path) >= boundary
        over = hit.any(axis=1)
        found[active[over]] = done + 1 + hit.argmax(axis=1)[over]
        active, logs, done = active[~over], path[~over, -1, :], done + part.shape[1]
    return found
