"""When a challenger's trial ends without an answer: the teacher is kept, and the next candidate gets its turn.

Every test that the stage needs has an end. Stopping for futility never raises alpha, so any rule may decide it.

| test | ends, undecided |
|---|---|
| quality | at `n_max` pairs, or when its present rate would need more, or when it is proven worse than the margin |
| paired latency | at `n_max` pairs, or when its present rate would need more |
| SLO of a step | at `n_max` blocks |
| errors | at `n_max` requests of the last step, which alone needs it |

The rate of evidence is not judged in a canary: failures and slow spells are rare, so that a student with half of the
failures it may have looks hopeless after a fifth of `n_max`.
"""

import math

from router.policy import RoutePolicy
from router.rollout_state import Trial
from router.sequential import Mixture


def in_shadow(trial: Trial, policy: RoutePolicy) -> str | None:
    """The cause for which a trial in shadow ends: `quality_inferior`, or a test's name and `_undecided` (it reached
    n_max) or `_too_slow` (it would not decide before)."""
    needed, most = math.log(1.0 / policy.quality.alpha), policy.quality.n_max
    if not trial.quality_passed and trial.inferior.log_value >= needed:
        return "quality_inferior"
    tests: tuple[tuple[str, Mixture, bool], ...] = (
        ("quality", trial.quality, trial.quality_passed),
        ("latency", trial.latency, trial.latency_passed),
    )
    for name, test, passed in tests:
        if passed:
            continue
        if max(test.n, trial.pairs) >= most:
            return f"{name}_undecided"
        if test.n and test.n >= most // 5 and test.log_value / test.n * most < needed:
            return f"{name}_too_slow"
    return None


def in_canary(trial: Trial, policy: RoutePolicy, *, last_step: bool) -> str | None:
    """The cause for which a canary ends: `slo_undecided` or `errors_undecided`."""
    most = policy.quality.n_max
    if not trial.slo_passed and trial.slo.n >= most:
        return "slo_undecided"
    if last_step and not trial.errors_passed and trial.requests >= most:
        return "errors_undecided"
    return None
