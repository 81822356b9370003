"""Confidence sequences for display: where a mean lies, at every look at once.

For X in [0, 1] (values in a known range are scaled to it) with E[X | past] = mu, the predictable plug-in empirical
Bernstein sequence:
    sum(l_i X_i)/sum(l_i) -+ (ln(2/alpha) + sum(4 (X_i - m_{i-1})^2 psi(l_i))) / sum(l_i),  psi(l) = (-ln(1-l) - l)/4,
    l_i = min(1/2, sqrt(2 ln(2/alpha) / (s_{i-1} i ln(1+i)))),
    m_i = (1/2 + sum X)/(i+1),  s_i = (1/4 + sum (X_k - m_k)^2)/(i+1).
P(mu is ever outside) <= alpha, so the intersection over all looks is shown: it only shrinks.

Assumes one mean throughout. Where it drifts this is about no value in particular, so that nothing is decided by it: the
tests' nulls are about each observation given its past. Default: empirical Bernstein, because its width follows the
observed variance (a student that nearly always agrees), takes O(1) state, and needs no root to be found; the betting
sequence is narrower, but keeps the capital of every candidate mean.

Source: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", theorem 2.
"""

import math

import msgspec
import numpy as np

from router.sequential.mixture import Floats

MOST_BET = 0.5  # the paper's c: larger ones make the first few values count more than they can say


class Interval(msgspec.Struct, frozen=True):
    """State, in units of [0, 1]. `total`: sum X; `spread`: sum (X_k - m_k)^2; `bets`, `staked`, `paid`: the sums of
    l, of l X and of 4 (X - m)^2 psi(l); `low`, `high`: the intersection so far (low > high where mu was missed)."""

    n: int = 0
    total: float = 0.0
    spread: float = 0.0
    bets: float = 0.0
    staked: float = 0.0
    paid: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def fold(self, values: Floats, alpha: float, *, least: float = 0.0, most: float = 1.0) -> "Interval":
        """The next values, in [least, most], ValueError outside. One sequence keeps its alpha and its range. O(n)."""
        x = (values - least) / (most - least)
        if not x.size:
            return self
        if not (x.min() >= 0.0 and x.max() <= 1.0):
            raise ValueError(f"values must be between {least:g} and {most:g}; got {np.min(values)} to {np.max(values)}")
        i = self.n + np.arange(1.0, x.size + 1.0)
        totals = self.total + np.cumsum(x)
        means = np.concatenate(([(0.5 + self.total) / (self.n + 1.0)], (0.5 + totals) / (i + 1.0)))  # from m_{i-1}
        spreads = self.spread + np.cumsum((x - means[1:]) ** 2)
        variances = (0.25 + np.concatenate(([self.spread], spreads[:-1]))) / i  # s_{i-1}
        evidence = math.log(2.0 / alpha)
        bets = np.minimum(MOST_BET, np.sqrt(2.0 * evidence / (variances * i * np.log1p(i))))
        sums = self.bets + np.cumsum(bets)
        staked = self.staked + np.cumsum(bets * x)
        paid = self.paid + np.cumsum((x - means[:-1]) ** 2 * (-np.log1p(-bets) - bets))
        centre, width = staked / sums, (evidence + paid) / sums
        return Interval(
            self.n + x.size,
            float(totals[-1]),
            float(spreads[-1]),
            float(sums[-1]),
            float(staked[-1]),
            float(paid[-1]),
            max(self.low, float((centre - width).max())),
            min(self.high, float((centre + width).min())),
        )

    def bounds(self, *, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
        """(low, high) in the values' own units."""
        return least + self.low * (most - least), least + self.high * (most - least)
