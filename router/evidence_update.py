"""What a batch of observations does to a version's tests and e-detectors. Pure; no stage moves here."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

from router import rollout_selective, rollout_tests
from router.decision import Arm
from router.evidence import Metric, Observation
from router.policy import RoutePolicy
from router.registry import Stage
from router.rollout_state import Guard, Level, Probe, RouteState, Stream, Trial
from router.rollout_tests import most_difference
from router.sequential import error_rate, outcomes, quality, slo
from router.sequential.mixture import Floats
from router.sequential.slo import Block

DROP = 0.05  # rolled back when this much worse than its own level
WARN = 0.02
LEAST = 200  # values that make a level: at 5% their standard error is 1.5 points, a third of DROP

Watch = Callable[[Floats, float], Floats]  # harm, the harm that is borne; to log factors

replace = msgspec.structs.replace


def observe(state: RouteState, seen: Iterable[Observation], policy: RoutePolicy) -> RouteState:
    """The state after a batch's observations; those of versions that are not in shadow, canary or live change
    nothing."""
    by_version: defaultdict[str, list[Observation]] = defaultdict(list)
    for one in seen:
        if one.version in state.guards:
            by_version[one.version].append(one)
    for version in sorted(by_version):
        state = _observe(state, version, by_version[version], policy)
    return state


def close_block(state: RouteState, version: str, policy: RoutePolicy) -> RouteState:
    """Judge a version's block if its time is over."""
    guard = state.guards[version]
    trial = state.trial if version == state.challenger else None
    if _over(guard.block, state.now, policy):
        guard, trial = _closed(replace(guard, block=Block()), trial, guard.block, policy, state.versions[version].stage)
    if trial and trial.probe and _over(trial.probe.block, state.now, policy):
        trial = replace(trial, probe=_probe_closed(replace(trial.probe, block=Block()), trial.probe.block, policy))
    return _with(state, version, guard, trial)


def against_level(guard: Guard, stream: Stream, harm: Floats, stage: Stage, watch: Watch) -> Guard:
    """More values of a stream, in [0, 1], against the version's own level: mean harm + DROP (WARN).

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
            worse=level.worse.fold(watch(harm, min(level.mean + DROP, 0.99))),  # a rate of 1 leaves nothing to bet on
            warning=level.warning.fold(watch(harm, min(level.mean + WARN, 0.99))),
        )
    else:
        level = replace(level, n=level.n + len(harm), total=level.total + float(harm.sum()))
        if stage is Stage.LIVE and level.n >= LEAST:
            level = replace(level, mean=level.total / level.n)
    return replace(guard, levels={**guard.levels, stream: level})


def _observe(state: RouteState, version: str, seen: Sequence[Observation], policy: RoutePolicy) -> RouteState:
    guard, stage = state.guards[version], state.versions[version].stage
    trial = state.trial if version == state.challenger else None
    pairs = [
        one
        for one in seen
        if one.metric is Metric.QUALITY and one.pair_value is not None and one.measure in ("", policy.measure)
    ]
    errors = [one for one in seen if one.metric is Metric.ERROR]
    times = [one for one in seen if one.metric in (Metric.LATENCY, Metric.TTFT)]
    if pairs:
        guard, trial = _pairs(guard, trial, pairs, policy, stage)
    if errors:
        guard, trial = _errors(guard, trial, errors, policy, stage)
    if times:
        guard, trial = _times(guard, trial, times, policy, stage, now=state.now)
    if policy.outcomes and stage is not Stage.SHADOW:
        guard = _outcomes(guard, [one for one in seen if one.metric is Metric.OUTCOME], policy.outcomes.margin)
    return _with(state, version, guard, trial)


def _with(state: RouteState, version: str, guard: Guard, trial: Trial | None) -> RouteState:
    state = replace(state, guards={**state.guards, version: guard})
    return replace(state, trial=trial) if trial else state


def _pairs(
    guard: Guard, trial: Trial | None, pairs: Sequence[Observation], policy: RoutePolicy, stage: Stage
) -> tuple[Guard, Trial | None]:
    margin = policy.quality.margin
    differences = np.array([one.value - (one.pair_value or 0.0) for one in pairs])
    most = most_difference(policy.quality)
    guard = replace(guard, expected_pairs=0.0, silence=0.0)
    if policy.selective:
        guard = rollout_selective.pairs(guard, pairs, policy, policy.selective, stage)
    else:
        guard = replace(guard, quality=guard.quality.fold(quality.watch(differences, margin)))
        guard = against_level(guard, "quality", -differences, stage, _watch_loss)
    if trial and stage is Stage.SHADOW:  # the ramp proves operation, quality is proven before
        trial = replace(
            trial,
            quality=trial.quality.fold(rollout_tests.quality_passes(differences, policy.quality, spread=trial.spread)),
            spread=trial.spread.fold(differences, margin),
            inferior=trial.inferior.fold(quality.fails(differences, margin)),
            interval=trial.interval.fold(np.clip(differences, -1.0, most), trial.alpha, least=-1.0, most=most),
            pairs=trial.pairs + len(pairs),
            lost=trial.lost - float(differences.sum()),
        )
    return guard, trial


def _watch_loss(loss: Floats, margin: float) -> Floats:
    return quality.watch(-loss, margin)


def _errors(
    guard: Guard, trial: Trial | None, errors: Sequence[Observation], policy: RoutePolicy, stage: Stage
) -> tuple[Guard, Trial | None]:
    """One end of a process is one failure to what watches; to what promotes, every request that it cost counts."""
    failed = np.array([one.value for one in errors if not one.along])
    if len(failed):
        guard = replace(guard, errors=guard.errors.fold(error_rate.watch(failed, policy.errors.rollback_above)))
        guard = against_level(guard, "errors", failed, stage, error_rate.watch)
    served = np.array([one.value for one in errors if one.arm is Arm.STUDENT])
    if trial and len(served):
        trial = replace(
            trial,
            errors=trial.errors.fold(error_rate.passes(served, policy.errors.promote_below)),
            requests=trial.requests + len(served),
        )
    return guard, trial


def _outcomes(guard: Guard, seen: Sequence[Observation], margin: float) -> Guard:
    """A teacher's outcome was logged with the teacher's propensity: the student's is the rest."""
    served = np.array([one.arm is Arm.STUDENT for one in seen], dtype=float)
    own = np.array([one.propensity for one in seen])
    propensity = np.where(served > 0.0, own, 1.0 - own)
    values = np.array([one.value for one in seen])
    baseline, factors = outcomes.watch(guard.baseline, values, served, propensity, margin)
    return replace(guard, baseline=baseline, outcomes=guard.outcomes.fold(factors))


def _times(
    guard: Guard,
    trial: Trial | None,
    times: Sequence[Observation],
    policy: RoutePolicy,
    stage: Stage,
    *,
    now: float,
) -> tuple[Guard, Trial | None]:
    pairs = [(one.value, one.pair_value) for one in times if one.pair_value is not None]
    if trial and pairs and stage is Stage.SHADOW:
        trial = replace(
            trial, latency=trial.latency.fold(rollout_tests.latency_passes(np.array(pairs), policy.latency))
        )
    if trial and trial.probe:
        block, done = _count(trial.probe.block, times, policy, now)
        probe = replace(trial.probe, block=block)
        trial = replace(trial, probe=_probe_closed(probe, done, policy) if done else probe)
    served = [one for one in times if one.arm is Arm.STUDENT]  # a shadow call's load is not what users would meet
    if not served:
        return guard, trial
    block, done = _count(guard.block, served, policy, now)
    guard = replace(guard, block=block)
    return _closed(guard, trial, done, policy, stage) if done else (guard, trial)


def _count(block: Block, times: Sequence[Observation], policy: RoutePolicy, now: float) -> tuple[Block, Block | None]:
    slow = sum(one.value > policy.latency.slo_ms for one in times)
    return slo.add(block, now, policy.latency.block, slow=slow, total=len(times))


def _closed(
    guard: Guard, trial: Trial | None, block: Block, policy: RoutePolicy, stage: Stage
) -> tuple[Guard, Trial | None]:
    q, share = 1.0 - policy.latency.quantile, np.array([block.share])
    guard = replace(guard, slo=guard.slo.fold(slo.watch(share, q)))
    guard = against_level(guard, "slo", share, stage, slo.watch)
    if trial:
        trial = replace(trial, slo=trial.slo.fold(slo.passes(share, q)))
    return guard, trial


def _probe_closed(probe: Probe, block: Block, policy: RoutePolicy) -> Probe:
    q, share = 1.0 - policy.latency.quantile, np.array([block.share])
    return replace(probe, slo=probe.slo.fold(slo.passes(share, q)), broken=probe.broken.fold(slo.watch(share, q)))


def _over(block: Block, now: float, policy: RoutePolicy) -> bool:
    """Backwards too: a clock that was set back begins a new block."""
    return block.index >= 0 and int(now // policy.latency.block) != block.index
