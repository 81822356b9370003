"""What a mean of scores in [0, 1] may be, from some of them: the one interval of gate, card and thresholds.

Records of a group (a conversation, near-duplicates) resemble each other, so n records count as Kish's

    n' = n^2 / sum over groups of size^2        equal groups: one each, as if their means were drawn

which is exact in Hoeffding's inequality, whose weights are the groups' shares, and the worst that resemblance can do.

Where each score is 0 or 1: Clopper & Pearson 1934, exact; with n' in place of n it is Korn & Graubard's (1998). Where
some are fractions: Hoeffding & Bentkus (Bates et al. 2021), which for no loss at all is the same, so that one fraction
among perfect scores costs little. It assumes nothing of their distribution.
"""

import math
from collections import Counter
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
    n = len(values) if groups is None else independent(groups)
    mean = math.fsum(values) / len(values)
    if mean >= 1.0:
        return 1.0
    if all(value in (0.0, 1.0) for value in values):
        return clopper_pearson_upper(mean * n, n, level=level)
    return _hoeffding_bentkus(mean, n, 1.0 - level)


def independent(groups: Sequence[str]) -> float:
    """Kish's n': how many records that don't resemble each other they are worth."""
    return len(groups) ** 2 / sum(size**2 for size in Counter(groups).values()) if groups else 0.0


def clopper_pearson_upper(hits: float, n: float, *, level: float) -> float:
    """A one-sided upper bound of a probability, from `hits` of `n`; 1 without any."""
    if hits >= n:
        return 1.0
    from scipy.stats import beta  # noqa: PLC0415 - heavy: only an evaluation pays for it

    return float(beta.ppf(level, hits + 1, n - hits))


def _hoeffding_bentkus(mean: float, n: float, alpha: float) -> float:
    """The r at which

        min( exp(-n h(m, r)), e P(Bin(n, r) <= ceil(n m)) ) = alpha,   h(m, r) = m ln(m/r) + (1-m) ln((1-m)/(1-r))

    by bisection, since the left side falls in r. 0 < m < 1, as some value is a fraction. The binomial has whole n."""
    from scipy.stats import binom  # noqa: PLC0415 - heavy: only an evaluation pays for it

    low, high, whole = mean, 1.0, math.floor(n)
    for _ in range(40):
        r = (low + high) / 2
        entropy = mean * math.log(mean / r) + (1 - mean) * math.log((1 - mean) / max(1 - r, 1e-300))
        tail = float(binom.cdf(math.ceil(whole * mean - 1e-9), whole, r))
        low, high = (r, high) if min(math.exp(-n * entropy), math.e * tail) > alpha else (low, r)
    return high
