"""What one observation does to a version's tests and e-detectors. Pure; no stage moves here."""

import math

import msgspec

from router.decision import Arm
from router.evidence import Metric, Observation
from router.policy import RoutePolicy
from router.rollout_state import Guard, RouteState, Trial
from router.sequential import error_rate, quality, relative_latency, slo
from router.sequential.slo import Block

DROP = 0.05  # rolled back when this much below the level at which it left shadow
WARN = 0.02

replace = msgspec.structs.replace


def observe(state: RouteState, seen: Observation, policy: RoutePolicy) -> RouteState:
    """The state after one observation of a version that is in shadow, canary or live; others change nothing."""
    guard = state.guards.get(seen.version)
    if guard is None:
        return state
    trial = state.trial if seen.version == state.challenger else None
    if seen.metric is Metric.QUALITY:
        guard, trial = _pair(guard, trial, seen.value - (seen.pair_value or 0.0), policy)
    elif seen.metric is Metric.ERROR:
        guard = replace(guard, errors=error_rate.watch(guard.errors, seen.value, policy.errors.rollback_above))
        if trial and seen.arm is Arm.STUDENT:
            trial = replace(
                trial,
                errors=error_rate.passes(trial.errors, seen.value, policy.errors.promote_below),
                requests=trial.requests + 1,
            )
    else:
        guard, trial = _latency(state, guard, trial, seen, policy)
    state = replace(state, guards={**state.guards, seen.version: guard})
    return replace(state, trial=judged(trial, policy)) if trial else state


def close_block(state: RouteState, version: str, policy: RoutePolicy) -> RouteState:
    """Judge a version's block if its time is over."""
    guard = state.guards[version]
    if guard.block.index < 0 or state.now < (guard.block.index + 1) * policy.latency.block:
        return state
    trial = state.trial if version == state.challenger else None
    guard, trial = _closed(replace(guard, block=Block()), trial, guard.block, policy)
    state = replace(state, guards={**state.guards, version: guard})
    return replace(state, trial=judged(trial, policy)) if trial else state


def judged(trial: Trial, policy: RoutePolicy) -> Trial:
    """The trial with every test marked that has crossed its boundary."""
    strict = math.log(1.0 / policy.quality.alpha)
    step_alpha = math.log(len(policy.rollout.steps) / policy.quality.alpha)
    return replace(
        trial,
        quality_passed=trial.quality_passed or trial.quality.log_value >= strict,
        latency_passed=trial.latency_passed or trial.latency.log_value >= strict,
        errors_passed=trial.errors_passed or trial.errors.log_value >= strict,
        slo_passed=trial.slo_passed or trial.slo.log_value >= step_alpha,
    )


def _pair(guard: Guard, trial: Trial | None, difference: float, policy: RoutePolicy) -> tuple[Guard, Trial | None]:
    margin = policy.quality.margin
    guard = replace(guard, quality=quality.watch(guard.quality, difference, margin), expected_pairs=0.0, silence=0.0)
    if guard.level is not None:
        guard = replace(
            guard,
            below_level=quality.watch(guard.below_level, difference, DROP - guard.level),
            warning=quality.watch(guard.warning, difference, WARN - guard.level),
        )
    if trial and guard.level is None:  # in shadow: the ramp proves operation, quality is proven before
        trial = replace(
            trial,
            quality=quality.passes(trial.quality, difference, margin),
            inferior=quality.fails(trial.inferior, difference, margin),
            pairs=trial.pairs + 1,
            lost=trial.lost - difference,
        )
    return guard, trial


def _latency(
    state: RouteState, guard: Guard, trial: Trial | None, seen: Observation, policy: RoutePolicy
) -> tuple[Guard, Trial | None]:
    if trial and seen.pair_value is not None and guard.level is None:
        passed = relative_latency.passes(trial.latency, seen.value, seen.pair_value, policy.latency.margin)
        trial = replace(trial, latency=passed)
    if seen.arm is not Arm.STUDENT:
        return guard, trial  # a shadow call's load is not what users would meet
    slow = seen.value > policy.latency.slo_ms
    block, done = slo.add(guard.block, state.now, policy.latency.block, slow=slow)
    guard = replace(guard, block=block)
    return _closed(guard, trial, done, policy) if done else (guard, trial)


def _closed(guard: Guard, trial: Trial | None, block: Block, policy: RoutePolicy) -> tuple[Guard, Trial | None]:
    q = 1.0 - policy.latency.quantile
    guard = replace(guard, slo=slo.watch(guard.slo, block.share, q))
    if trial:
        trial = replace(trial, slo=slo.passes(trial.slo, block.share, q))
    return guard, trial
