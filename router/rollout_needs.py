"""What a challenger's next move upwards needs, and whether it has it.

| move | needs |
|---|---|
| shadow -> first step | quality (or a certified threshold of selective serving) and paired latency |
| step -> next step | dwell, requests, this step's SLO test |
| last step -> live | the same, and the error test |
| any step, with `probe` | the SLO kept while the student was asked at that step's rate, for so long |
"""

from router import rollout_selective
from router.policy import RoutePolicy
from router.registry import Stage
from router.rollout_state import Probe, RouteState, Trial
from router.rollout_tests import boundary, step_boundary


def next_move(state: RouteState, policy: RoutePolicy) -> str | None:
    """The cause of the move that the challenger's evidence opens; None where something is missing."""
    trial, version = state.trial, state.challenger
    if version is None:
        return None
    if state.versions[version].stage is Stage.SHADOW:
        if not trial.latency.reached(boundary(trial)):
            return None
        if policy.selective:
            certified = rollout_selective.worth_serving(state.guards[version], policy.selective)
            return "selective_and_latency_passed" if certified else None
        return "quality_and_latency_passed" if trial.quality.reached(boundary(trial)) else None
    if not trial.slo.reached(step_boundary(trial, policy)) or not _stayed(trial, state.step, policy):
        return None
    if state.step + 1 < len(policy.rollout.steps):
        return "step_passed"
    return "errors_passed" if trial.errors.reached(boundary(trial)) else None


def probe_for(state: RouteState, policy: RoutePolicy) -> Probe | None:
    """A new probe of the step that comes next; None where none is wanted."""
    in_shadow = state.challenger is not None and state.versions[state.challenger].stage is Stage.SHADOW
    step = 0 if in_shadow else state.step + 1
    if not policy.rollout.probe or step >= len(policy.rollout.steps):
        return None
    return Probe(min(policy.rollout.steps[step], 1.0 - policy.rollout.holdback))


def probe_passed(probe: Probe, trial: Trial, policy: RoutePolicy) -> bool:
    """Whether the student has kept its SLO at the next step's rate for long enough."""
    return probe.seconds >= policy.rollout.probe and probe.slo.reached(step_boundary(trial, policy))


def _stayed(trial: Trial, step: int, policy: RoutePolicy) -> bool:
    return trial.dwell >= policy.rollout.dwell(step) and trial.requests >= policy.rollout.min_requests
