"""A mixture of betting martingales: the one engine under every test and detector here.

For increments x_i with E[x_i | past] <= 0 under the null and x_i >= -bound, each
    K_n(l) = prod_i (1 + l x_i),  0 < l < 1/bound,
is a non-negative supermartingale, and so is their mean over a fixed grid of bets l. By Ville's inequality
P(ever mean_j K_n(l_j) >= 1/alpha) <= alpha, however often one looks. A geometric grid needs no guess of the effect:
it costs at most a factor of its size, against the best of its bets.

A test's module turns observations into log factors, log(1 + l_j x_i), of shape (n, bets); states and paths here add
them up. `fold` takes any number at once and keeps the highest value that was passed on the way, so that it is the same
as a look after each.

Sources: Ville 1939; Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting".
"""

from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETS = 12  # 12 bets cover two decades with neighbours 1.5 apart; more change no median by 2%


class Mixture(msgspec.Struct, frozen=True):
    """`logs`: the log capital of each bet (empty before the first increment); `n`: increments seen; `best`: the
    highest log value at any look."""

    logs: tuple[float, ...] = ()
    n: int = 0
    best: float = 0.0

    @property
    def log_value(self) -> float:
        """The log of the mean capital: the e-value's log."""
        return float(log_mean(np.array(self.logs))) if self.logs else 0.0

    def reached(self, log_boundary: float) -> bool:
        """Whether the boundary was reached at any look: a test that has passed stays passed."""
        return self.best >= log_boundary

    def fold(self, factors: Floats) -> "Mixture":
        """`factors`: log factors of the next increments, (n, bets). O(n)."""
        if not len(factors):
            return self
        path = mixture_logs(factors, self.logs)
        values = log_mean(path)
        return Mixture(tuple(path[-1].tolist()), self.n + len(factors), max(self.best, float(values.max())))


class Cusum(msgspec.Struct, frozen=True):
    """An e-detector of CUSUM form, M_j <- max(M_j, 1) (1 + l_j x): it forgets good times, so that harm after months
    of good service is seen as fast as on the first day. Mean run length to a false alarm >= c for an alarm at
    mean_j M_j >= c (Shin, Ramdas & Rinaldo 2023)."""

    logs: tuple[float, ...] = ()
    n: int = 0
    best: float = 0.0

    @property
    def log_value(self) -> float:
        """The log of mean_j M_j."""
        return float(log_mean(np.array(self.logs))) if self.logs else 0.0

    def reached(self, log_boundary: float) -> bool:
        """Whether the mean was at the boundary at any look."""
        return self.best >= log_boundary

    def fold(self, factors: Floats) -> "Cusum":
        """`factors`: log factors of the next increments, (n, bets), positive where there is harm. O(n)."""
        if not len(factors):
            return self
        path = cusum_logs(factors, self.logs)
        values = log_mean(path)
        return Cusum(tuple(path[-1].tolist()), self.n + len(factors), max(self.best, float(values.max())))


def log_factors(x: Floats, bets: Floats) -> Floats:
    """log(1 + l_j x_i): (..., n) increments and (k) bets to (..., n, k)."""
    return np.log1p(np.asarray(x, dtype=np.float64)[..., None] * bets)


def mixture_logs(factors: Floats, start: tuple[float, ...] = ()) -> Floats:
    """Log capitals after each increment, (..., n, k)."""
    path = np.cumsum(factors, axis=-2)
    return path + np.array(start) if start else path


def cusum_logs(factors: Floats, start: tuple[float, ...] = ()) -> Floats:
    """log M_j after each increment, (..., n, k): with S the sums, max(M, 1) unrolled is S - min over earlier S."""
    sums = np.cumsum(factors, axis=-2)
    floor = np.empty_like(sums)
    floor[..., 0, :] = -np.maximum(np.array(start), 0.0) if start else 0.0
    floor[..., 1:, :] = sums[..., :-1, :]
    return np.asarray(sums - np.minimum.accumulate(floor, axis=-2))


def log_mean(logs: Floats) -> Floats:
    """log(mean(exp(logs))) over the last axis, without overflow."""
    top = logs.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logs - top[..., None]).mean(axis=-1)))


@cache
def grid(low: float, high: float, bound: float) -> Floats:
    """A geometric grid of bets on [low, high] / bound, where x >= -bound; high < 1 keeps every factor positive."""
    bets = np.geomspace(low, high, BETS) / bound
    bets.flags.writeable = False
    return bets


def crossing(log_values: Floats, log_boundary: float) -> NDArray[np.int64]:
    """Along the last axis, the number of increments after which the boundary is first reached; 0 where never."""
    hit = log_values >= log_boundary
    return np.where(hit.any(axis=-1), hit.argmax(axis=-1) + 1, 0)
