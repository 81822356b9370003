"""What a mean of scores in [0, 1] may be, from some of them: the one interval of gate, card and thresholds.

Records of a group (a conversation, near-duplicates) resemble each other, so a group counts as one record, with its mean
score. The interval is put around the mean of all records: exact where groups are of one size; where sizes differ, it
assumes that large groups err no more alike than small ones.

Where each score is 0 or 1: Clopper & Pearson 1934, exact. Where some are fractions: Hoeffding & Bentkus (Bates et al.
2021), which for no loss at all is the same, so that one fraction among perfect scores costs little. It assumes nothing
of their distribution.

Records may stand for others (weight w, the inverse of how likely they were to be seen). The mean is self-normalised,
sum(w v) / sum(w) (Hajek 1971), and the bound is that of z = v w / max(w), which lies in [0, 1] too, over the mean of
w / max(w): since E[z] = E[v] in the population times that mean. So n records tell as much as sum(w) / max(w) of the
heaviest ones, which is what they tell where only those err. With equal weights it is the bound without any. The weights
are taken as they are found: that there might have been more heavy ones is left out.
"""

import itertools
import math
from collections.abc import Sequence


def interval(
    values: Sequence[float],
    *,
    confidence: float,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Two-sided, for the mean of `values`; (0, 1) without any. `groups`: each value's, None where all are alone.
    `weights`: above 0, None where all are alike."""
    level = (1.0 + confidence) / 2.0
    lost = [1.0 - value for value in values]
    lower = 1.0 - upper_bound(lost, level=level, groups=groups, weights=weights)
    return lower, upper_bound(values, level=level, groups=groups, weights=weights)


def upper_bound(
    values: Sequence[float],
    *,
    level: float,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> float:
    """One-sided, for the mean of `values`; 1 without any."""
    if not values:
        return 1.0
    known = _Units(values, groups, weights)
    n = len(known.shares)
    mean = math.fsum(known.scaled) / n
    if mean >= 1.0:
        return 1.0
    whole = all(unit in (0.0, 1.0) for unit in known.scaled) and (mean == 0.0 or min(known.shares) == 1.0)
    found = (
        clopper_pearson_upper(round(mean * n), n, level=level) if whole else _hoeffding_bentkus(mean, n, 1.0 - level)
    )
    return min(1.0, weighted_mean(values, weights) + (found - mean) * n / math.fsum(known.shares))


def weighted_mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """sum(w v) / sum(w); 0 without any."""
    if not values:
        return 0.0
    if weights is None:
        return math.fsum(values) / len(values)
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


def telling(groups: Sequence[str], weights: Sequence[float]) -> float:
    """How many records of the greatest weight tell as much as these; a group counts once."""
    return math.fsum(_Units([0.0] * len(groups), groups, weights).shares) if groups else 0.0


class _Units:
    """One a group. `shares`: its mean weight, of the greatest one; `scaled`: its weighted mean value times that."""

    def __init__(self, values: Sequence[float], groups: Sequence[str] | None, weights: Sequence[float] | None) -> None:
        members: dict[object, list[float]] = {}  # weighted sum, sum of weights, count
        for value, group, weight in zip(
            values, groups or range(len(values)), weights or itertools.repeat(1.0, len(values)), strict=True
        ):
            sums = members.setdefault(group, [0.0, 0.0, 0.0])
            sums[0] += value * weight
            sums[1] += weight
            sums[2] += 1.0
        heaviest = max(weight / count for _, weight, count in members.values())
        # Rounded, so that equal weights are equal however many were added up.
        self.shares = [round(weight / count / heaviest, 12) for _, weight, count in members.values()]
        pairs = zip(self.shares, members.values(), strict=True)
        self.scaled = [share * (lost / weight) for share, (lost, weight, _) in pairs]


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
