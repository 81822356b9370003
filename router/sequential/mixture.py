"""A mixture of betting martingales: the one engine under every test and detector here.

For increments x_i with E[x_i | past] <= 0 under the null and x_i >= -bound, each
    K_n(l) = prod_i (1 + l x_i),  0 < l < 1/bound,
is a non-negative supermartingale, and so is their mean over a fixed grid of bets l. By Ville's inequality
P(ever mean_j K_n(l_j) >= 1/alpha) <= alpha, however often one looks. A geometric grid needs no guess of the effect:
it costs at most a factor of its size, against the best of its bets.

Sources: Ville 1939; Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting".
"""

import math
from functools import cache

import msgspec

BETS = 12  # 12 bets cover two decades with neighbours 1.5 apart; more change no median by 2%


class Mixture(msgspec.Struct, frozen=True):
    """`logs`: the log capital of each bet; `n`: increments seen."""

    logs: tuple[float, ...] = (0.0,) * BETS
    n: int = 0

    @property
    def log_value(self) -> float:
        """The log of the mean capital: the e-value's log. O(1)."""
        return log_mean(self.logs)

    def step(self, x: float, bets: tuple[float, ...]) -> "Mixture":
        """One more increment."""
        log1p = math.log1p
        return Mixture(tuple([k + log1p(b * x) for k, b in zip(self.logs, bets, strict=True)]), self.n + 1)


class Cusum(msgspec.Struct, frozen=True):
    """An e-detector of CUSUM form, M_j <- max(M_j, 1) (1 + l_j x): it forgets good times, so that harm after months
    of good service is seen as fast as on the first day. Mean run length to a false alarm >= c for an alarm at
    mean_j M_j >= c (Shin, Ramdas & Rinaldo 2023)."""

    logs: tuple[float, ...] = (0.0,) * BETS
    n: int = 0

    @property
    def log_value(self) -> float:
        """The log of mean_j M_j."""
        return log_mean(self.logs)

    def reached(self, log_boundary: float) -> bool:
        """Whether the mean is at the boundary; it is never above the best bet, which is quickly looked up."""
        return max(self.logs) >= log_boundary and self.log_value >= log_boundary

    def step(self, x: float, bets: tuple[float, ...]) -> "Cusum":
        """One more increment, positive where there is harm."""
        log1p = math.log1p
        return Cusum(
            tuple([(k if k > 0.0 else 0.0) + log1p(b * x) for k, b in zip(self.logs, bets, strict=True)]), self.n + 1
        )


@cache
def grid(low: float, high: float, bound: float) -> tuple[float, ...]:
    """A geometric grid of bets on [low, high] / bound, where x >= -bound; high < 1 keeps every factor positive."""
    ratio = (high / low) ** (1 / (BETS - 1))
    return tuple(low * ratio**j / bound for j in range(BETS))


def log_mean(logs: tuple[float, ...]) -> float:
    """log(mean(exp(logs))), without overflow."""
    top = max(logs)
    return top + math.log(sum([math.exp(k - top) for k in logs]) / len(logs))
