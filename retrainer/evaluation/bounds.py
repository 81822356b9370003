"""What a mean of scores in [0, 1] may be, from some of them: the one interval of gate, card and thresholds.

Records of a group (a conversation, near-duplicates) resemble each other, so a group counts as one record, with its mean
score. The interval is put around the mean of all records: exact where groups are of one size; where sizes differ, it
assumes that large groups err no more alike than small ones.

Where each score is 0 or 1: Clopper & Pearson 1934, exact. Where some are fractions: Hoeffding & Bentkus (Bates et al.
2021), which for no loss at all is the same, so that one fraction among perfect scores costs little. It assumes nothing
of their distribution.
"""

import math
from collections.abc import Sequence


def interval(values: Sequence[float], *, confidence: float, groups: Sequence[str] | None = None) -> tuple[float, float]:
    """Two-sided, for the mean of `values`; (0, 1) without any. `groups`: each value's, None where all are alone."""
    level = (1.0 + confidence) / 2.0
    lost = [1.0 - value for value in values]
    return 1.0 - upper_bound(lost, level=level, groups=groups), upper_bound(values, level=level, groups=groups)


def upper_bound(values: Sequence[float], *, level: float, groups: Sequence[str] | None = None) -> float:
    """One-sided, for the mean of `values`; 1 without any."""
    if not values:
        return 1.0
    units = values if groups is None else _means(values, groups)
    mean, n = math.fsum(units) / len(units), len(units)
    if mean >= 1.0:
        return 1.0
    if all(unit in (0.0, 1.0) for unit in units):
        found = clopper_pearson_upper(round(mean * n), n, level=level)
    else:
        found = _hoeffding_bentkus(mean, n, 1.0 - level)
    return min(1.0, math.fsum(values) / len(values) + found - mean)


def _means(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    members: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return [math.fsum(found) / len(found) for found in members.values()]


def clopper_pearson_upper(hits: int, n: int, *, level: float) -> float:
    """A one-sided upper bound of a probability, from `hits` of `n`; 1 without any."""
    if hits >= n:
        return 1.0
    from scipy.stats import beta  # noqa: PLC0415 - heavy: only an evaluation pays for it

    return float(beta.ppf(level, hits + 1, n - hits))


def _hoeffding_bentkus(mean: float, n: int, alpha: float) -> float:
    """The r at which

        min( exp(-n h(m, r)), e P(Bin(n, r) <= ceil(n m)) ) = alpha,   h(m, r) = m ln(m/r) + (1-m) ln((1-m)/(1-r))

    by bisection, since the left side falls in r. 0 < m < 1, as some value is a fraction."""
    from scipy.stats import binom  # noqa: PLC0415 - heavy: only an evaluation pays for it

    low, high = mean, 1.0
    for _ in range(40):
        r = (low + high) / 2
        entropy = mean * math.log(mean / r) + (1 - mean) * math.log((1 - mean) / max(1 - r, 1e-300))
        tail = float(binom.cdf(math.ceil(n * mean - 1e-9), n, r))
        low, high = (r, high) if min(math.exp(-n * entropy), math.e * tail) > alpha else (low, r)
    return high
