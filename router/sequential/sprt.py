"""Wald's sequential probability ratio tests, for those who know one more number beforehand: `test: sprt`.

The null's nearest point is tested against one point, so that a single bet is made and nothing is paid for a mixture.
The price is the number: where it is wrong the test is slow (binary), or no longer holds its level (paired).

Binary (`binary`): H0: P(x = 1) <= p0 against p1 > p0; or, with p1 < p0, H0: P(x = 1) >= p0. Each x = 1 adds
ln(p1/p0), each 0 adds ln((1-p1)/(1-p0)). A value in between, 0 < x < 1, counts as that share of a success: what is
added is the log of the straight line between the two ratios, 1 + (x - p0) (p1 - p0)/(p0 (1-p0)). Its mean is at most
1 whenever E[x | past] is on H0's side of p0, so H0 is one of means and the level holds for every score in [0, 1].
(Counting x = 1 alone as success would hold it too, and throw the rest away.)

Paired (`paired`): D in {-1, 0, 1} where a share psi of the pairs differs. H0: E[D] <= -d against E[D] = 0. A win adds
ln(psi/(psi-d)), a loss ln(psi/(psi+d)), a tie nothing. A value in between counts as that share of a win or of a loss:
1 + D d/(psi-d) above 0, 1 + D d/(psi+d) below. With E[D] = -d and psi' = E|D| the mean ratio is
1 + d^2 (psi' - psi)/(psi^2 - d^2): at most 1 while E|D| given the past is at most psi, above it where more pairs
differ than was said. So psi is an upper bound; a wrong one raises false promotions, which `test: betting` never does.

Boundaries: Wald's upper one, ln((1-beta)/alpha), holds alpha only about; here it is the strict ln(1/alpha) (Ville),
also right when nobody ever stops for futility. The lower one, ln(beta/(1-alpha)), says that the student is no better
than H0.

Sources: Wald 1945, "Sequential tests of statistical hypotheses"; Ville 1939.
"""

import math

import numpy as np

from router.sequential.mixture import Floats

BETA = 0.1  # a good student is given up for futility in a tenth of the runs at the most: the trials' usual 90% power


def binary(x: Floats, p0: float, p1: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors (n, 1) of values in [0, 1]. ValueError where p0, p1 aren't two different numbers within (0, 1)."""
    if not (0.0 < p0 < 1.0 and 0.0 < p1 < 1.0 and p0 != p1):
        raise ValueError(f"p0 and p1 must be two different rates between 0 and 1; got {p0} and {p1}")
    slope = (p1 - p0) / (p0 * (1.0 - p0))
    return np.log1p(weights * (slope * (x - p0)))[..., None]


def agreement(differences: Floats, margin: float, good_rate: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors (n, 1) of D = score - 1 in [-1, 0]: H0, the score's mean is at most 1 - margin, against good_rate."""
    if good_rate <= 1.0 - margin:
        raise ValueError(f"good_rate must be above 1 - margin = {1.0 - margin:g}; got {good_rate}")
    return binary(1.0 + differences, 1.0 - margin, good_rate, weights)


def slower(w: Floats, good_rate: float) -> Floats:
    """Log factors (n, 1) of relative latency: H0, the student is slower in half of the pairs, against good_rate."""
    if not 0.0 < good_rate < 0.5:
        raise ValueError(f"good_rate is a share of slower pairs under 0.5, for example 0.4; got {good_rate}")
    return binary(w, 0.5, good_rate)


def paired(differences: Floats, margin: float, discordance: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors (n, 1) of D in [-1, 1], against an equal student. ValueError unless margin < discordance <= 1.

    `weights`: as in `quality`, for pairs that came about with unequal probabilities.
    """
    if not 0.0 < margin < discordance <= 1.0:
        raise ValueError(f"discordance must be above the margin {margin}, and at most 1; got {discordance}")
    d = differences
    gain = np.where(d > 0.0, d * margin / (discordance - margin), d * margin / (discordance + margin))
    return np.log1p(weights * gain)[..., None]


def boundaries(alpha: float, beta: float = BETA) -> tuple[float, float]:
    """(lower, upper): at or above the upper one H0 is refuted; at or below the lower one the test has failed."""
    return math.log(beta / (1.0 - alpha)), math.log(1.0 / alpha)
