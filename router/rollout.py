"""Rollout decisions: a pure fold over a route's evidence. Which evidence opens which stage stands in `moves`.

    candidate -> shadow -> canary (step by step) -> live -> retired
                   |             |                    |
                rejected     rolled back          rolled back

The same records give the same decisions, so a log can be replayed, from any checkpoint. The clock is the ticks': an
observation's own time decides its place in its batch, nothing else.
"""

import json

import msgspec

from router import batch as batches_of
from router.batch import Records
from router.evidence import EventKind, RouteEvent
from router.evidence_update import close_block, observe
from router.policy import parse_policy
from router.registry import Stage, Transition
from router.rollout_moves import Mover
from router.rollout_pairs import expect_pairs
from router.rollout_state import RouteState, VersionState
from router.rollout_view import shown_anew

LONGEST_TICK = 60.0  # seconds that one tick may add to a dwell: a clock that jumps, or a night off, proves nothing

replace = msgspec.structs.replace


def fold(state: RouteState, batch: Records) -> tuple[RouteState, list[Transition]]:
    """The state after one more complete batch (see `batches`), and the decisions that it made."""
    offset, last = batch[-1]
    event, before = batches_of.event(batch), state
    if event and event.kind is EventKind.TICK:
        state = _aged(state, event.at)
    if state.policy is None and event:
        state, event = _before_policy(state, event), None
    if state.policy is None:
        return state, []
    mover = Mover(state, parse_policy(state.policy), offset=offset, at=last.at)
    mover.state = observe(state, batches_of.observations(batch), mover.policy)
    for version in list(mover.state.guards):
        mover.state = close_block(mover.state, version, mover.policy)
    mover.move()
    if event:
        _apply(mover, event)
        mover.move()
    return shown_anew(before, mover.state), mover.transitions


def stages(state: RouteState) -> dict[str, Stage]:
    """Each version's stage."""
    return {version: known.stage for version, known in state.versions.items()}


def _apply(mover: Mover, event: RouteEvent) -> None:
    if event.kind is EventKind.POLICY:
        before, after = mover.state.policy, json.dumps(event.data["policy"], sort_keys=True)
        if before is not None and before != after:
            mover.policy_changed(json.loads(before), json.loads(after), parse_policy(after))
        mover.state = replace(mover.state, policy=after)
    elif event.kind is EventKind.OPERATOR:
        mover.operate(event)
    elif event.kind is EventKind.HARD_STOP:
        mover.hard_stop(event)
    elif event.kind is EventKind.TICK:
        requests = {int(revision): n for revision, n in event.data.get("requests", {}).items()}
        mover.state = expect_pairs(mover.state, requests, mover.policy)
    else:
        mover.state = _before_policy(mover.state, event)
        if event.kind is EventKind.UNREADY and event.data.get("hopeless"):
            mover.unready(event)


def _before_policy(state: RouteState, event: RouteEvent) -> RouteState:
    """Arrival and readiness, which need no policy, and the first policy."""
    if event.kind is EventKind.POLICY:
        return replace(state, policy=json.dumps(event.data["policy"], sort_keys=True))
    if event.version is None:
        return state
    known = state.versions.get(event.version, VersionState(Stage.CANDIDATE))
    if event.kind is EventKind.CANDIDATE:
        thresholds, shares = (tuple(event.data.get(name, ())) for name in ("thresholds", "shares"))
        known = replace(known, admitted=True, thresholds=thresholds, shares=shares)
    elif event.kind is EventKind.READY:
        known = replace(known, ready=True)
    elif event.kind is EventKind.UNREADY:
        known = replace(known, ready=False)
    else:
        return state
    return replace(state, versions={**state.versions, event.version: known})


def _aged(state: RouteState, now: float) -> RouteState:
    """Time has passed: it counts for dwells, and for the silence of pairs. A clock set back adds nothing."""
    seconds = min(max(now - state.now, 0.0), LONGEST_TICK) if state.now else 0.0
    guards = {
        version: replace(
            guard,
            silence=guard.silence + seconds,
            served=guard.served + seconds if version == state.live else guard.served,
        )
        for version, guard in state.guards.items()
    }
    trial = replace(state.trial, dwell=state.trial.dwell + seconds)
    if trial.probe:
        trial = replace(trial, probe=replace(trial.probe, seconds=trial.probe.seconds + seconds))
    return replace(state, now=now, guards=guards, trial=trial)
