"""How alpha is spent over the versions of a route.

`version` (default): every version is tested at alpha, which is what a release engineer expects of one release. Of many
bad versions, a share of up to alpha gets through.
`route`: the k-th version is tested at alpha_k = alpha * 6 / (pi^2 k^2). The alphas sum to alpha over all k (Euler,
sum 1/k^2 = pi^2/6), so by the union bound a route ever promotes a bad version with probability at most alpha, without
a limit on their number. Only versions that entered shadow count. Evidence of ln(1/alpha_k) = ln(1/alpha) + 2 ln(k) +
0.5 is needed: 2 to 4 times the samples after dozens of versions.

Assumes that k is fixed before the version's first pair. Source: Foster & Stine 2008, "alpha-investing", and the union
bound; 1/k^2 because a schedule must be summable, and a steeper one would starve later versions.
"""

import math
from typing import Literal

Spend = Literal["version", "route"]


def alpha_of(alpha: float, spend: Spend, version: int) -> float:
    """The level of the `version`-th version (from 1) of a route that entered shadow."""
    if version < 1:
        raise ValueError(f"versions are counted from 1, in the order in which they entered shadow; got {version}")
    if spend == "version":
        return alpha
    return alpha * 6.0 / (math.pi * version) ** 2
