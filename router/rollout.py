"""Rollout decisions: a pure fold over a route's evidence. Which evidence opens which stage stands in `moves`.

    candidate -> shadow -> canary (step by step) -> live -> retired
                   |             |                    |
                rejected     rolled back          rolled back

The same records give the same decisions, so a log can be replayed, from any checkpoint.
"""

import json
from functools import lru_cache

import msgspec

from router.evidence import EventKind, Evidence, Observation, RouteEvent
from router.evidence_update import close_block, observe
from router.policy import RoutePolicy
from router.registry import Stage, Transition
from router.rollout_moves import Mover, fraction
from router.rollout_state import RouteState, VersionState

LONGEST_TICK = 60.0  # seconds that one record may add to a dwell: a clock that jumps, or a night off, proves nothing

replace = msgspec.structs.replace


@lru_cache(maxsize=64)
def parse_policy(text: str) -> RoutePolicy:
    """A policy as it stands in the log."""
    return RoutePolicy.model_validate(json.loads(text))


def fold(state: RouteState, offset: int, record: Evidence) -> tuple[RouteState, list[Transition]]:
    """The state after one more record, and the decisions that it made."""
    passed = min(max(record.at - state.now, 0.0), LONGEST_TICK) if state.now else 0.0
    state = replace(state, now=max(state.now, record.at))
    before = state.policy
    if isinstance(record, RouteEvent) and record.kind is EventKind.POLICY:
        state = replace(state, policy=json.dumps(record.data["policy"], sort_keys=True))
    if state.policy is None:
        return _before_policy(state, record), []
    mover = Mover(_aged(state, passed), parse_policy(state.policy), offset=offset, at=record.at)
    if before and before != state.policy:
        mover.policy_changed(json.loads(before), json.loads(state.policy))
    elif isinstance(record, Observation):
        mover.state = observe(mover.state, record, mover.policy)
    else:
        _apply(mover, record)
    for version in list(mover.state.guards):
        mover.state = close_block(mover.state, version, mover.policy)
    mover.move()
    return mover.state, mover.transitions


def stages(state: RouteState) -> dict[str, Stage]:
    """Each version's stage."""
    return {version: known.stage for version, known in state.versions.items()}


def current_fraction(state: RouteState) -> float:
    """The challenger's share of eligible traffic."""
    return fraction(state, parse_policy(state.policy)) if state.policy else 0.0


def _apply(mover: Mover, event: RouteEvent) -> None:
    if event.kind is EventKind.OPERATOR:
        mover.operate(event)
    elif event.kind is EventKind.HARD_STOP:
        mover.hard_stop(event)
    elif event.kind is EventKind.TICK:
        mover.expect_pairs({int(revision): n for revision, n in event.data.get("requests", {}).items()})
    else:
        mover.state = _before_policy(mover.state, event)
        if event.kind is EventKind.UNREADY and event.data.get("hopeless"):
            mover.unready(event)


def _before_policy(state: RouteState, record: Evidence) -> RouteState:
    """Arrival and readiness, which need no policy."""
    if isinstance(record, Observation) or record.version is None:
        return state
    known = state.versions.get(record.version, VersionState(Stage.CANDIDATE))
    if record.kind is EventKind.CANDIDATE:
        known = replace(known, admitted=True)
    elif record.kind is EventKind.READY:
        known = replace(known, ready=True)
    elif record.kind is EventKind.UNREADY:
        known = replace(known, ready=False)
    else:
        return state
    return replace(state, versions={**state.versions, record.version: known})


def _aged(state: RouteState, seconds: float) -> RouteState:
    """Time has passed: it counts for the dwell, and for the silence of pairs."""
    guards = {version: replace(guard, silence=guard.silence + seconds) for version, guard in state.guards.items()}
    return replace(state, guards=guards, trial=replace(state.trial, dwell=state.trial.dwell + seconds))
