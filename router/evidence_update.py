"""What one observation does to a version's tests and e-detectors. Pure; no stage moves here."""

import math
from collections.abc import Callable

import msgspec

from router.decision import Arm
from router.evidence import Metric, Observation
from router.policy import RoutePolicy
from router.registry import Stage
from router.rollout_state import Guard, Level, RouteState, Stream, Trial
from router.sequential import Cusum, error_rate, quality, relative_latency, slo
from router.sequential.slo import Block

DROP = 0.05  # rolled back when this much worse than its own level
WARN = 0.02
LEAST = 200  # values that make a level: at 5% their standard error is 1.5 points, a third of DROP

Watch = Callable[[Cusum, float, float], Cusum]  # state, harm, the harm that is borne

replace = msgspec.structs.replace


def observe(state: RouteState, seen: Observation, policy: RoutePolicy) -> RouteState:
    """The state after one observation of a version that is in shadow, canary or live; others change nothing."""
    guard = state.guards.get(seen.version)
    if guard is None:
        return state
    stage = state.versions[seen.version].stage
    trial = state.trial if seen.version == state.challenger else None
    if seen.metric is Metric.QUALITY:
        guard, trial = _pair(guard, trial, seen.value - (seen.pair_value or 0.0), policy, stage)
    elif seen.metric is Metric.ERROR:
        guard = replace(guard, errors=error_rate.watch(guard.errors, seen.value, policy.errors.rollback_above))
        guard = against_level(guard, "errors", seen.value, stage, error_rate.watch)
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
    guard, trial = _closed(replace(guard, block=Block()), trial, guard.block, policy, state.versions[version].stage)
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


def against_level(guard: Guard, stream: Stream, harm: float, stage: Stage, watch: Watch) -> Guard:
    """One more value of a stream, in [0, 1], against the version's own level: mean harm + DROP (WARN).

    The level of quality is the one at which the version left shadow. Those of errors and SLO blocks are learnt over
    the canary (of blocks: its last step, which has the load of live) and fixed when it is live, after at least LEAST
    values. So is any level that a version promoted by hand has not brought along from earlier service: without a
    level there is nothing to fall below.
    """
    level = guard.levels.get(stream, Level())
    if stage is Stage.SHADOW:
        return guard
    if level.mean is not None:
        level = replace(
            level,
            worse=watch(level.worse, harm, min(level.mean + DROP, 0.99)),  # a rate of 1 leaves nothing to bet on
            warning=watch(level.warning, harm, min(level.mean + WARN, 0.99)),
        )
    else:
        level = replace(level, n=level.n + 1, total=level.total + harm)
        if stage is Stage.LIVE and level.n >= LEAST:
            level = replace(level, mean=level.total / level.n)
    return replace(guard, levels={**guard.levels, stream: level})


def _pair(
    guard: Guard, trial: Trial | None, difference: float, policy: RoutePolicy, stage: Stage
) -> tuple[Guard, Trial | None]:
    margin = policy.quality.margin
    guard = replace(guard, quality=quality.watch(guard.quality, difference, margin), expected_pairs=0.0, silence=0.0)
    guard = against_level(guard, "quality", -difference, stage, _watch_loss)
    if trial and stage is Stage.SHADOW:  # the ramp proves operation, quality is proven before
        trial = replace(
            trial,
            quality=quality.passes(trial.quality, difference, margin),
            inferior=quality.fails(trial.inferior, difference, margin),
            pairs=trial.pairs + 1,
            lost=trial.lost - difference,
        )
    return guard, trial


def _watch_loss(state: Cusum, loss: float, margin: float) -> Cusum:
    return quality.watch(state, -loss, margin)


def _latency(
    state: RouteState, guard: Guard, trial: Trial | None, seen: Observation, policy: RoutePolicy
) -> tuple[Guard, Trial | None]:
    stage = state.versions[seen.version].stage
    if trial and seen.pair_value is not None and stage is Stage.SHADOW:
        passed = relative_latency.passes(trial.latency, seen.value, seen.pair_value, policy.latency.margin)
        trial = replace(trial, latency=passed)
    if seen.arm is not Arm.STUDENT:
        return guard, trial  # a shadow call's load is not what users would meet
    slow = seen.value > policy.latency.slo_ms
    block, done = slo.add(guard.block, state.now, policy.latency.block, slow=slow)
    guard = replace(guard, block=block)
    return _closed(guard, trial, done, policy, stage) if done else (guard, trial)


def _closed(
    guard: Guard, trial: Trial | None, block: Block, policy: RoutePolicy, stage: Stage
) -> tuple[Guard, Trial | None]:
    q = 1.0 - policy.latency.quantile
    guard = replace(guard, slo=slo.watch(guard.slo, block.share, q))
    guard = against_level(guard, "slo", block.share, stage, slo.watch)
    if trial:
        trial = replace(trial, slo=slo.passes(trial.slo, block.share, q))
    return guard, trial
