"""What the held-out records say of a student that serves only what it is sure of: the thresholds of confidence that
its tests begin with, how alpha is shared among them, and how much the loosest safe one would serve.

No promise rests on these records: live, each threshold has to earn its certificate (`router.sequential.selective`).
Thresholds and shares that fit badly cost time, never safety. The offline bound, which the gate asks for, picks the
loosest of many thresholds without a correction; it only keeps out students that are good at nothing.
"""

import math
from collections.abc import Sequence

import msgspec

from exporters.models.confidence import SMALLEST
from retrainer.evaluation.bounds import upper_bound
from router.sequential.selective_shares import shares_of, thresholds_of

LEVEL = 0.9  # of the one-sided bounds
FALLBACK_COVERAGE = 0.05  # where no threshold is safe offline


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the offline records say of one threshold. `accepted` of `n` records lie at or above it; `coverage` is their
    share, with its lower bound; `risk` their mean loss, with its upper bound (both one-sided, at LEVEL). `safe`:
    whether `risk_upper` is at most `max_risk`."""

    threshold: float
    n: int
    accepted: int
    coverage: float
    coverage_lower: float
    risk: float
    risk_upper: float
    max_risk: float
    safe: bool


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """`values`: falling; `shares`: of alpha, one a value, with the sum 1. `start`: the loosest that is safe offline."""

    values: list[float]
    shares: list[float]
    start: Start


def choose(
    confidences: Sequence[float], losses: Sequence[float], *, max_risk: float, groups: Sequence[str] | None = None
) -> Thresholds:
    """`confidences` in [0, 1], 0 where the input is novel; `losses` in [0, 1]. `groups`: of records that resemble each
    other, None where none do.

    The start is the loosest threshold with a safe bound, else the strictest that keeps FALLBACK_COVERAGE of the records
    (SMALLEST where there is none). Assumes records which the confidences were not fitted on.
    """
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    values = thresholds_of(np.array(confidences, dtype=np.float64))
    shares = shares_of(values, np.array(confidences), np.array(losses), max_risk=max_risk)
    pairs = list(zip(confidences, losses, strict=True))
    start = _loosest_safe(pairs, max_risk, list(map(str, range(len(pairs)))) if groups is None else groups)
    return Thresholds(values=list(values), shares=list(shares), start=start)


def _loosest_safe(pairs: Sequence[tuple[float, float]], max_risk: float, groups: Sequence[str]) -> Start:
    known = sorted({c for c, _ in pairs if c > 0.0})
    safe = next((s for t in known if (s := measure(pairs, t, max_risk=max_risk, groups=groups)).safe), None)
    if safe is not None:
        return safe
    wanted = math.ceil(FALLBACK_COVERAGE * len(pairs))
    strict = [t for t in known if sum(c >= t for c, _ in pairs) >= wanted]
    return measure(pairs, max(strict, default=SMALLEST), max_risk=max_risk, groups=groups)


def measure(pairs: Sequence[tuple[float, float]], threshold: float, *, max_risk: float, groups: Sequence[str]) -> Start:
    """What (confidence, loss) pairs say of a threshold. `groups`: each pair's."""
    kept = [(loss, group) for (c, loss), group in zip(pairs, groups, strict=True) if c >= threshold]
    taken = [loss for loss, _ in kept]
    n, accepted = len(pairs), len(taken)
    upper = upper_bound(taken, level=LEVEL, groups=[group for _, group in kept])
    return Start(
        threshold=threshold,
        n=n,
        accepted=accepted,
        coverage=accepted / n if n else 0.0,
        coverage_lower=1.0 - upper_bound([float(c < threshold) for c, _ in pairs], level=LEVEL, groups=groups),
        risk=math.fsum(taken) / accepted if accepted else 0.0,
        risk_upper=upper,
        max_risk=max_risk,
        safe=upper <= max_risk,
    )
