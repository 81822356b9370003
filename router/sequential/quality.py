"""Is the student within the margin of its reference? Paired, from shadow pairs.

D = score(student) - score(reference), in [-1, 1]. The null H0: E[D | past] <= -d is refuted by
    K_n = mean_j prod_i (1 + l_ij (D_i + d)) >= 1/alpha,
valid for any bets 0 <= l_ij <= 1/(1 - d) that are chosen before D_i. There are eight:
  * four aim at an equal student. A bet's capital grows by about l d - l^2 s / 2 a pair where E[D] = 0, with
    s = E[(D + d)^2]; the best is l = d / s. s is estimated from the pairs before (with a prior of 20 pairs of which a
    tenth differ), and l_ij = c_j d / s_i for c_j about 1. So nothing is paid for not knowing how many pairs differ.
  * four stay put, geometric on [d/0.4, d/0.06]: they are for students that are worse than their reference and yet
    within the margin, where the best bet is smaller, and for changes on the way.
No bet is above 0.5 / (1 - d): one lost pair costs at most half of a bet's capital.

The default, since in the median it takes a third fewer pairs than a geometric grid of 12 (`passes_on_grid`), and 1.2
to 1.4 times those of Wald's trinomial test, which must be told the share of pairs that differ.

Assumes that a pair is judged on its own request, whatever else drifts. Source: Waudby-Smith & Ramdas 2024
(predictable plug-in bets, and mixtures of them).

Where pairs come about with unequal probabilities, D + d is weighted with w = (the smallest of them) / (its own), so
that the weighted increments have the sign of the mean that all requests have.
"""

from functools import cache

import msgspec
import numpy as np

from router.sequential.mixture import Floats, grid, log_factors

AIMS = (0.8, 0.95, 1.1, 1.25)  # c_j: even 0.8 and 1.25 lose only 6% of the best growth
MOST_BET = 0.5  # of the bound
PRIOR_PAIRS, PRIOR_DIFFERING = 20.0, 0.1  # half or twice the latter moves no median by more than a tenth


class Spread(msgspec.Struct, frozen=True):
    """What s is estimated from. `weight`: the sum of earlier pairs' weights; `squares`: that of (w (D + d))^2."""

    weight: float = 0.0
    squares: float = 0.0

    def fold(self, differences: Floats, margin: float, weights: Floats | float = 1.0) -> "Spread":
        """The spread after these pairs, whose factors `passes` gave from the spread before. O(n)."""
        x = weights * (differences + margin)
        total = float(np.broadcast_to(weights, x.shape).sum())
        return Spread(self.weight + total, self.squares + float((x * x).sum()))


UNSEEN = Spread()


def passes(differences: Floats, margin: float, weights: Floats | float = 1.0, *, spread: Spread = UNSEEN) -> Floats:
    """Log factors (..., n, 8) of the test that the student is good enough. `margin` > 0.

    `spread`: that of all earlier pairs; without it these are the test's first. The level holds in any case.
    """
    x = weights * (differences + margin)
    w = np.broadcast_to(weights, x.shape)
    squares = x * x
    before = spread.squares + np.cumsum(squares, axis=-1) - squares
    seen = spread.weight + np.cumsum(w, axis=-1) - w
    s = (PRIOR_PAIRS * (PRIOR_DIFFERING + margin * margin) + before) / (PRIOR_PAIRS + seen)
    aimed = np.minimum(np.array(AIMS) * (margin / s)[..., None], MOST_BET / (1.0 - margin))
    fixed = np.broadcast_to(_fixed(margin), (*x.shape, len(_fixed(margin))))
    return np.asarray(np.log1p(x[..., None] * np.concatenate([aimed, fixed], axis=-1)))


@cache
def _fixed(margin: float) -> Floats:
    high = min(MOST_BET / (1.0 - margin), margin / 0.06)
    bets = np.geomspace(min(margin / 0.4, high / 2.0), high, 4)
    bets.flags.writeable = False
    return bets


def passes_on_grid(differences: Floats, margin: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors (..., n, 12) of the same test with l_j geometric on [0.01, 0.5] / (1 - d): no state, and slower."""
    return log_factors(weights * (differences + margin), grid(0.01, 0.5, 1.0 - margin))


def fails(differences: Floats, margin: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors of the opposite test, H0: E[D | past] >= -d; refuted, the student is worse than the margin."""
    return log_factors(-weights * (differences + margin), grid(0.01, 0.9, 1.0 + margin))


def watch(differences: Floats, margin: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors of the e-detector of answers worse than the margin: x = -(D + d), l on [0.01, 0.9] / (1 + d).

    Watched from its own level L, `margin` is 0.05 - L: 0.06 for a student promoted at -0.01. It is negative where a
    student was promoted at more than 5 points better than its reference, which takes a reference that can be beaten.
    """
    return log_factors(-weights * (differences + margin), grid(0.01, 0.9, 1.0 + margin))
