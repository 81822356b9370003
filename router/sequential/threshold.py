"""One threshold of confidence: its bets, and what the sums over the pairs that it accepts say of its risk.

Bets are geometric on [0.1, 0.9] of their bound, 1 / (1 - max_risk): smaller ones pay only for risks within 5% of
max_risk, after tens of thousands of pairs. The tests of all thresholds together are in `selective`.
"""

import math

import msgspec
import numpy as np

from router.sequential.mixture import Floats, grid, log_mean

BETS = 8
_BETS = np.geomspace(0.1, 0.9, BETS)


def bets(max_risk: float) -> Floats:
    """The bets l_j against max_risk."""
    return np.asarray(_BETS / (1.0 - max_risk))


def growth(risk: Floats, max_risk: float) -> Floats:
    """What the best bet, known beforehand, wins an accepted pair at each risk, in logs: KL(risk || max_risk), Kelly's
    rate; 0 from max_risk on."""
    risk = np.clip(risk, 0.0, max_risk)
    won = risk * np.log(np.maximum(risk, 1e-300) / max_risk) + (1.0 - risk) * np.log((1.0 - risk) / (1.0 - max_risk))
    return np.maximum(won, 0.0)  # rounding, just below max_risk


class Tested(msgspec.Struct, frozen=True):
    """One threshold. `logs`: the log capital of each bet. `certified`: whether it may serve. Since it began (afresh):
    `seen`, the weight of all pairs; `accepted` and `weight`, the number and weight of those that it accepts; `lost`,
    the sum of w x loss over these."""

    threshold: float
    logs: tuple[float, ...] = (0.0,) * BETS
    certified: bool = False
    seen: float = 0.0
    accepted: int = 0
    weight: float = 0.0
    lost: float = 0.0

    @property
    def log_value(self) -> float:
        """The log of M_k."""
        return float(log_mean(np.array(self.logs)))

    @property
    def coverage(self) -> float:
        """The share of requests that it accepts; 0 before the first pair."""
        return self.weight / self.seen if self.seen else 0.0

    @property
    def risk(self) -> float | None:
        """The mean loss of what it accepts; None before the first such pair."""
        return self.lost / self.weight if self.weight else None

    def bound(self, alpha: float) -> float:
        """An upper bound of the risk, at level 1 - alpha however often one looks, where the risk is constant.

        The largest r for which M with max_risk = r refutes nothing, by bisection. The sums suffice: log(1 - l w
        (loss - r)) is concave in loss and in w, so it is at least w (loss log(1 - l (1 - r)) + (1 - loss)
        log(1 + l r)), with equality for losses of 0 and 1 and w = 1.
        """
        low, high = 0.0, 1.0
        for _ in range(40):
            r = (low + high) / 2.0
            low, high = (low, r) if self._refutes_above(r) >= math.log(1.0 / alpha) else (r, high)
        return high

    def inferior(self, max_risk: float) -> float:
        """The log e-value, at least, of the sums against a risk of max_risk or less."""
        against, good = grid(0.01, 0.9, max_risk), self.weight - self.lost
        return float(log_mean(self.lost * np.log1p(against * (1.0 - max_risk)) + good * np.log1p(-against * max_risk)))

    def prospect(self, max_risk: float) -> float:
        """What the best bet would have won by now, in logs, had the risk been two standard errors lower."""
        if self.risk is None:
            return 0.0
        lower = self.risk - 2.0 * math.sqrt(self.risk * (1.0 - self.risk) / self.weight)
        return self.weight * float(growth(np.array(lower), max_risk))

    def _refutes_above(self, r: float) -> float:
        """The log e-value, at least, of the sums against a risk of r or more."""
        against, good = bets(r), self.weight - self.lost
        return float(log_mean(self.lost * np.log1p(-against * (1.0 - r)) + good * np.log1p(against * r)))
