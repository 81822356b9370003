"""What the held-out records say of a student that serves only what it is sure of: the thresholds of confidence that
its tests begin with, how alpha is shared among them, and how much the loosest safe one would serve.

No promise rests on these records: live, each threshold has to earn its certificate (`router.sequential.selective`).
Thresholds and shares that fit badly cost time, never safety. The offline bound, which the gate asks for, picks the
loosest of many thresholds without a correction; it only keeps out students that are good at nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from exporters.models.confidence import SMALLEST
from retrainer.evaluation.bounds import upper_bound, weighted_mean
from router.sequential.selective_shares import shares_of, thresholds_of

LEVEL = 0.9  # of the one-sided bounds
FALLBACK_COVERAGE = 0.05  # where no threshold is safe offline


class Record(NamedTuple):
    """A record that an answer to was judged by. `weight`: how many requests it stands for."""

    confidence: float
    loss: float
    group: str
    weight: float = 1.0


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the offline records say of one threshold. `accepted` of `n` records lie at or above it; `coverage` is their
    share by weight, with its lower bound; `risk` their mean loss, with its upper bound (both one-sided, at LEVEL).
    `safe`: whether `risk_upper` is at most `max_risk`. `errors`: of the accepted ones, answers that are none."""

    threshold: float
    n: int
    accepted: int
    coverage: float
    coverage_lower: float
    risk: float
    risk_upper: float
    max_risk: float
    safe: bool
    errors: int = 0


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """`values`: falling; `shares`: of alpha, one a value, with the sum 1. `start`: the loosest that is safe offline."""

    values: list[float]
    shares: list[float]
    start: Start


def choose(
    confidences: Sequence[float],
    losses: Sequence[float],
    *,
    max_risk: float,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Thresholds:
    """`confidences` in [0, 1], 0 where the input is novel; `losses` in [0, 1]. `groups`: of records that resemble each
    other, None where none do. `weights`: how many requests each stands for, None where all are alike; the values and
    shares, which cost time alone, are by record.

    The start is the loosest threshold with a safe bound, else the strictest that keeps FALLBACK_COVERAGE of the records
    (SMALLEST where there is none). Assumes records which the confidences were not fitted on.
    """
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    values = thresholds_of(np.array(confidences, dtype=np.float64))
    shares = shares_of(values, np.array(confidences), np.array(losses), max_risk=max_risk)
    count = len(confidences)
    records = [
        Record(*record)
        for record in zip(confidences, losses, groups or map(str, range(count)), weights or [1.0] * count, strict=True)
    ]
    start = _loosest_safe(records, max_risk)
    return Thresholds(values=list(values), shares=list(shares), start=start)


def _loosest_safe(records: Sequence[Record], max_risk: float) -> Start:
    known = sorted({r.confidence for r in records if r.confidence > 0.0})
    safe = next((t for t in known if _risk([r for r in records if r.confidence >= t])[1] <= max_risk), None)
    if safe is not None:
        return measure(records, safe, max_risk=max_risk)
    wanted = math.ceil(FALLBACK_COVERAGE * len(records))
    strict = [t for t in known if sum(r.confidence >= t for r in records) >= wanted]
    return measure(records, max(strict, default=SMALLEST), max_risk=max_risk)


def measure(records: Sequence[Record], threshold: float, *, max_risk: float) -> Start:
    """What records say of a threshold."""
    kept = [r for r in records if r.confidence >= threshold]
    risk, upper = _risk(kept)
    below, weights = [float(r.confidence < threshold) for r in records], [r.weight for r in records]
    deferred = upper_bound(below, level=LEVEL, groups=[r.group for r in records], weights=weights)
    return Start(
        threshold=threshold,
        n=len(records),
        accepted=len(kept),
        coverage=1.0 - weighted_mean(below, weights) if records else 0.0,
        coverage_lower=1.0 - deferred,
        risk=risk,
        risk_upper=upper,
        max_risk=max_risk,
        safe=upper <= max_risk,
    )


def _risk(kept: Sequence[Record]) -> tuple[float, float]:
    """The mean loss, and its upper bound."""
    lost, weights = [r.loss for r in kept], [r.weight for r in kept]
    return weighted_mean(lost, weights), upper_bound(lost, level=LEVEL, groups=[r.group for r in kept], weights=weights)
