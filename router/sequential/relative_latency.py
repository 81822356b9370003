"""Is the student at least as fast as its teacher? Paired on shadow calls, so that drift and load cancel.

W = 1{student > (1 + m) teacher}. The null H0: P(W = 1 | past) >= 1/2 (the student's median ratio is above 1 + m) is
refuted by bets on 1/2 - W, l geometric on [0.01, 0.9] / (1/2). A student call that failed is slower.
"""

from router.sequential.mixture import Mixture, grid


def passes(state: Mixture, student_ms: float, teacher_ms: float, margin: float) -> Mixture:
    """One more pair of times."""
    slower = student_ms > (1.0 + margin) * teacher_ms
    return state.step(0.5 - slower, grid(0.01, 0.9, 0.5))
