"""Is the student within the margin of its reference? Paired, from shadow pairs.

D = score(student) - score(reference), in [-1, 1]. The null H0: E[D | past] <= -d is refuted by
    K_n = mean_j prod_i (1 + l_j (D_i + d)),  l_j geometric on [0.01, 0.5] / (1 - d),  K_n >= 1/alpha.

Assumes that a pair is judged on its own request, whatever else drifts. l stays under half of its bound so that one
lost pair costs at most half of a bet's capital. Source: Waudby-Smith & Ramdas 2024.

Where pairs come about with unequal probabilities, D + d is weighted with w = (the smallest of them) / (its own), so
that the weighted increments have the sign of the mean that all requests have.
"""

from router.sequential.mixture import Floats, grid, log_factors


def passes(differences: Floats, margin: float, weights: Floats | float = 1.0) -> Floats:
    """Log factors of the test that the student is good enough."""
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
