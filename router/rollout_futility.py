"""When a challenger's trial ends without an answer: the teacher is kept, and the next candidate gets its turn.

Every test that the stage needs has an end. Stopping for futility never raises alpha, so any rule may decide it.

| test | ends, undecided |
|---|---|
| quality | at `n_max` pairs, or when its present rate would need far more, or when it is proven worse than the margin |
| selective serving | the same, of the first threshold; at `n_max`, when the certified ones cover too little |
| paired latency | at `n_max` pairs, or when its present rate would need more |
| SLO of a step | at `n_max` blocks |
| errors | at `n_max` requests of the last step, which alone needs it |

The rate of evidence is not judged in a canary: failures and slow spells are rare, so that a student with half of the
failures it may have looks hopeless after a fifth of `n_max`.
"""

import math

from router.policy import RoutePolicy
from router.registry import Stage
from router.rollout_selective import hopeless
from router.rollout_state import RouteState, Trial
from router.rollout_tests import boundary, sprt_failed, step_boundary
from router.sequential import Mixture


def ends(state: RouteState, policy: RoutePolicy) -> str | None:
    """The cause for which the challenger's trial ends, or None."""
    trial, version = state.trial, state.challenger
    if version is None:
        return None
    probe = trial.probe
    if probe and probe.broken.reached(math.log(policy.rollout.detector_threshold)):
        return "probe_failed"
    if probe and probe.slo.n >= policy.quality.n_max and not probe.slo.reached(step_boundary(trial, policy)):
        return "probe_undecided"
    if state.versions[version].stage is Stage.SHADOW:
        futile = policy.selective and hopeless(state.guards[version], policy.selective, policy.quality.n_max)
        return futile or _in_shadow(trial, policy)
    return _in_canary(trial, policy, last_step=state.step + 1 == len(policy.rollout.steps))


def _in_shadow(trial: Trial, policy: RoutePolicy) -> str | None:
    """`quality_inferior`, or a test's name and `_undecided` (it reached n_max) or `_too_slow` (it would not decide
    before)."""
    needed, most = boundary(trial), policy.quality.n_max
    tests: list[tuple[str, Mixture]] = [("latency", trial.latency)]
    if not policy.selective:
        if not trial.quality.reached(needed) and trial.inferior.reached(needed):
            return "quality_inferior"
        if not trial.quality.reached(needed) and sprt_failed(trial, policy.quality):
            return "quality_futile"
        tests.insert(0, ("quality", trial.quality))
    for name, test in tests:
        if test.reached(needed):
            continue
        if max(test.n, trial.pairs) >= most:
            return f"{name}_undecided"
        if test.n and test.n >= most // 5 and _at_most(test, most) < needed:
            return f"{name}_too_slow"
    return None


def _at_most(test: Mixture, most: int) -> float:
    """What a test's log value will be at `most` observations, at its present rate and with two standard deviations of
    luck: capital that just gets there grows by `rate` an observation, and a good bet's log varies by twice that."""
    rate = -math.log(0.05) / most
    return test.log_value / test.n * most + 2.0 * math.sqrt(2.0 * rate * (most - test.n))


def _in_canary(trial: Trial, policy: RoutePolicy, *, last_step: bool) -> str | None:
    """`slo_undecided` or `errors_undecided`."""
    most = policy.quality.n_max
    if not trial.slo.reached(step_boundary(trial, policy)) and trial.slo.n >= most:
        return "slo_undecided"
    if last_step and not trial.errors.reached(boundary(trial)) and trial.requests >= most:
        return "errors_undecided"
    return None
