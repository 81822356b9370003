"""Is the student at least as fast as its teacher? Paired on shadow calls, so that drift and load cancel.

W = 1{student > (1 + m) teacher}. The null H0: P(W = 1 | past) >= 1/2 (the student's median ratio is above 1 + m) is
refuted by bets on 1/2 - W, l geometric on [0.01, 0.9] / (1/2). A student call that failed is slower.

Assumes that a slow pair says nothing of the next one that their shared load doesn't: spells of the student alone that
outlast many pairs promote it falsely. What users meet is then the SLO test's, which judges blocks.

Comparing the arms' quantiles over a ramp instead is invalid under drift: a baseline that gets faster on its own
promotes any student.
"""

from router.sequential.mixture import Floats, grid, log_factors


def slower(student_ms: Floats, teacher_ms: Floats, margin: float) -> Floats:
    """W of each pair of times."""
    return (student_ms > (1.0 + margin) * teacher_ms).astype(float)


def passes(w: Floats) -> Floats:
    """Log factors of the test that the student is slower in less than half of the pairs."""
    return log_factors(0.5 - w, grid(0.01, 0.9, 0.5))
