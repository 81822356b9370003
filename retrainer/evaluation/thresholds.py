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


def choose(confidences: Sequence[float], losses: Sequence[float], *, max_risk: float) -> Thresholds:
    """`confidences` in [0, 1], 0 where the input is novel; `losses` in [0, 1].

    The start is the loosest threshold with a safe bound, else the strictest that keeps FALLBACK_COVERAGE of the records
    (SMALLEST where there is none). Assumes independent records, which the confidences were not fitted on.
    """
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    values = thresholds_of(np.array(confidences, dtype=np.float64))
    shares = shares_of(values, np.array(confidences), np.array(losses), max_risk=max_risk)
    start = _loosest_safe(confidences, losses, max_risk)
    return Thresholds(values=list(values), shares=list(shares), start=start)


def _loosest_safe(confidences: Sequence[float], losses: Sequence[float], max_risk: float) -> Start:
    pairs = sorted(zip(confidences, losses, strict=True), key=lambda pair: -pair[0])
    known = sorted({c for c, _ in pairs if c > 0.0})
    safe = next((s for t in known if (s := measure(pairs, t, max_risk=max_risk)).safe), None)
    if safe is not None:
        return safe
    wanted = math.ceil(FALLBACK_COVERAGE * len(pairs))
    strict = [t for t in known if sum(c >= t for c, _ in pairs) >= wanted]
    return measure(pairs, max(strict, default=SMALLEST), max_risk=max_risk)


def measure(pairs: Sequence[tuple[float, float]], threshold: float, *, max_risk: float) -> Start:
    """What (confidence, loss) pairs say of a threshold."""
    taken = [loss for confidence, loss in pairs if confidence >= threshold]
    n, accepted = len(pairs), len(taken)
    upper = risk_upper(taken)
    return Start(
        threshold=threshold,
        n=n,
        accepted=accepted,
        coverage=accepted / n if n else 0.0,
        coverage_lower=1.0 - clopper_pearson_upper(n - accepted, n),
        risk=sum(taken) / accepted if accepted else 0.0,
        risk_upper=upper,
        max_risk=max_risk,
        safe=upper <= max_risk,
    )


def risk_upper(losses: Sequence[float], *, level: float = LEVEL) -> float:
    """A one-sided upper bound of the mean of independent losses in [0, 1]; 1 without any.

    Where each is 0 or 1: Clopper & Pearson 1934, exact. Else Hoeffding & Bentkus (Bates et al. 2021): the r at which

        min( exp(-n h(m, r)), e P(Bin(n, r) <= ceil(n m)) ) = 1 - level,   h(m, r) = m ln(m/r) + (1-m) ln((1-m)/(1-r))

    with m the observed mean; found by bisection, since the left side falls in r.
    """
    n = len(losses)
    if all(loss in (0.0, 1.0) for loss in losses):
        return clopper_pearson_upper(round(sum(losses)), n, level=level)
    from scipy.stats import binom  # noqa: PLC0415 - heavy: only a cycle pays for it

    mean = sum(losses) / n
    low, high = mean, 1.0
    for _ in range(40):
        r = (low + high) / 2
        entropy = mean * math.log(mean / r) + (1 - mean) * math.log((1 - mean) / (1 - r))
        p = min(math.exp(-n * entropy), math.e * float(binom.cdf(math.ceil(n * mean), n, r)))
        low, high = (r, high) if p > 1 - level else (low, r)
    return high


def clopper_pearson_upper(hits: int, n: int, *, level: float = LEVEL) -> float:
    """A one-sided upper bound of a probability, from `hits` of `n`; 1 without any."""
    if hits >= n:
        return 1.0
    from scipy.stats import beta  # noqa: PLC0415 - heavy: only a cycle pays for it

    return float(beta.ppf(level, hits + 1, n - hits))
