"""Normal mixture boundaries, and the asymptotic confidence sequence that they give, for display.

For a sum s of centred increments and its accrued variance v, exp(b s - b^2 v / 2) is a martingale (Gaussian increments)
for each b. Mixed over b ~ N(0, 1/rho),
    two-sided:  M(s, v) = sqrt(rho/(v+rho)) exp(s^2 / (2 (v+rho))),
    one-sided (b > 0 only):  M(s, v) = 2 sqrt(rho/(v+rho)) exp(s^2 / (2 (v+rho))) Phi(s / sqrt(v+rho)),
and by Ville P(ever M >= 1/alpha) <= alpha: |s| (or s) stays below the bound at which M = 1/alpha. rho is chosen so that
the bound is tightest about the variance v_opt: rho = v_opt / (2 ln(1/alpha) + ln(1 + 2 ln(1/alpha))), one-sided with
2 alpha for alpha.

For increments that are not Gaussian and whose variance is estimated (`Moments`: the AIPW effects of outcomes, whose
bound of 1/pi makes a non-asymptotic interval uselessly wide) the sequence is asymptotic: right as the first look is
late, not from the first value on. So it is shown from 30 values on, and decides nothing.

Sources: Howard, Ramdas, McAuliffe & Sekhon 2021 (conjugate mixtures, and the choice of rho); Waudby-Smith, Arbour,
Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences".
"""

import math

import msgspec

from router.sequential.mixture import Floats

FIRST_SHOWN = 30  # below it the estimated variance itself is a guess
OPTIMAL_AT = 2000  # values at which the sequence is tightest: outcomes need thousands to say anything


def best_rho(v_opt: float, alpha: float) -> float:
    """The mixture's rho for which the two-sided bound is tightest about variance v_opt."""
    twice = 2.0 * math.log(1.0 / alpha)
    return v_opt / (twice + math.log1p(twice))


def log_mixture(s: float, v: float, rho: float) -> float:
    """ln M(s, v), two-sided."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2.0 * (v + rho))


def log_mixture_one_sided(s: float, v: float, rho: float) -> float:
    """ln M(s, v), one-sided: evidence that the increments' mean is above 0."""
    phi = 0.5 * math.erfc(-s / math.sqrt(2.0 * (v + rho)))
    return log_mixture(s, v, rho) + math.log(2.0 * phi)


def bound(v: float, alpha: float, rho: float) -> float:
    """The s at which the two-sided mixture is 1/alpha."""
    return math.sqrt((v + rho) * (2.0 * math.log(1.0 / alpha) + math.log((v + rho) / rho)))


def bound_one_sided(v: float, alpha: float, rho: float) -> float:
    """The s at which the one-sided mixture is 1/alpha, by bisection: it rises with s, and lies below the two-sided
    bound of the same rho at s where Phi is above a half."""
    low, high = 0.0, bound(v, alpha, rho)
    for _ in range(60):  # 2^-60 of the bound: below rounding
        middle = 0.5 * (low + high)
        if log_mixture_one_sided(middle, v, rho) < math.log(1.0 / alpha):
            low = middle
        else:
            high = middle
    return high


class Moments(msgspec.Struct, frozen=True):
    """The number of values, their sum, and the sum of their squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def fold(self, values: Floats) -> "Moments":
        """The next values, of any range."""
        squares = values * values
        return Moments(self.n + values.size, self.total + float(values.sum()), self.squares + float(squares.sum()))

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """The asymptotic confidence sequence of the mean at this look; None below 30 values or without variance."""
        if self.n < FIRST_SHOWN:
            return None
        mean = self.total / self.n
        variance = self.squares / self.n - mean * mean
        if variance <= 0.0:
            return None
        rho = best_rho(OPTIMAL_AT * variance, alpha)
        width = bound(self.n * variance, alpha, rho) / self.n
        return mean - width, mean + width
