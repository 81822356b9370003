"""Do users fare worse with the student? Unpaired outcomes (thumbs, resolution, conversion), for harm only.

Y in [0, 1] is a cluster's outcome: taken once, at its first exposure (so that the logged propensity pi, the
probability of the student's arm, is right), within a fixed window, silence counting as 0 (who reports is not random).
With A = 1 in the student's arm and a predictable guess m of Y,
    Z = A (Y - m)/pi - (1-A) (Y - m)/(1-pi)
has E[Z | past] = E[Y | student] - E[Y | teacher], whatever m, the drift or the ramp are (inverse propensity, augmented:
AIPW). m only shrinks Z; here it is the running mean of both arms' earlier outcomes.

H0: E[Z | past] >= -d (no harm beyond the margin). The e-detector bets on x = -(Z + d). Z is at most
b = max((1-m)/pi, m/(1-pi)), which is known before Y, so that each observation's bets are scaled by its own bound:
l = g / (b + d), g geometric on [0.01, 0.5]. A ramp from 5% to 50% so needs no bound for its worst step. (Up to 0.9 a
version at the margin is accused three times as often, and only one that fails outright is seen sooner: that one is the
errors' to see.) An observation whose arm was all but certain (pi outside [0.01, 0.99]) compares nothing, would need
bets of next to nothing, and is passed over; that is decided by pi alone, before Y.

It takes thousands of outcomes to see a few points, so nothing is promoted by it.
Assumes the logged pi, and no interference between clusters. Sources: Robins, Rotnitzky & Zhao 1994 (AIPW);
Waudby-Smith et al. 2024, "Anytime-valid off-policy inference for contextual bandits"; Shin, Ramdas & Rinaldo 2023.
"""

import msgspec
import numpy as np

from router.sequential.mixture import Floats, grid

OVERLAP = 0.01  # an arm rarer than 1 in 100 weighs one outcome as 100


class Baseline(msgspec.Struct, frozen=True):
    """What m is made of: the number and the sum of earlier outcomes in both arms."""

    n: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """m of the next outcome: the running mean, with one half as the outcome before the first."""
        return (0.5 + self.total) / (1 + self.n)


def effects(
    baseline: Baseline, outcomes: Floats, student: Floats, propensity: Floats
) -> tuple[Baseline, Floats, Floats]:
    """Z and its upper bound b of the next outcomes, in their order: (baseline after them, Z (n), b (n)).

    `student`: A, 1 in the student's arm. `propensity`: pi. Z is 0 and b infinite where pi is outside [0.01, 0.99].
    ValueError for an outcome outside [0, 1].
    """
    y, a, pi = outcomes, student, propensity
    if y.size and not (y.min() >= 0.0 and y.max() <= 1.0):  # also where one is not a number
        raise ValueError(f"outcomes must be between 0 and 1; got {y.min():g} to {y.max():g}")
    sums = np.concatenate(([0.0], np.cumsum(y))) + baseline.total
    m = (0.5 + sums[:-1]) / (1.0 + baseline.n + np.arange(y.size))
    after = Baseline(baseline.n + y.size, float(sums[-1]))
    usable = (pi >= OVERLAP) & (pi <= 1.0 - OVERLAP)
    p = np.where(usable, pi, 0.5)
    z = np.where(a > 0.0, (y - m) / p, (m - y) / (1.0 - p))
    bound = np.maximum((1.0 - m) / p, m / (1.0 - p))
    return after, np.where(usable, z, 0.0), np.where(usable, bound, np.inf)


def watch(
    baseline: Baseline, outcomes: Floats, student: Floats, propensity: Floats, margin: float
) -> tuple[Baseline, Floats]:
    """Log factors (n, bets) of the e-detector of outcomes that are worse by more than the margin: for `Cusum.fold`."""
    after, z, bound = effects(baseline, outcomes, student, propensity)
    stakes = -(z + margin) / (bound + margin)
    return after, np.log1p(stakes[..., None] * grid(0.01, 0.5, 1.0))
