"""A version's own levels, in and out of service: what it must not fall below."""

import msgspec

from router.evidence_update import LEAST
from router.registry import Stage
from router.rollout_alarms import LEVEL_ALARMS
from router.rollout_state import RouteState, Stream


def levels(state: RouteState, version: str) -> dict[Stream, float]:
    """Of this service or, where it is in none, of the last one."""
    guard, known, trial = state.guards.get(version), state.versions[version], state.trial
    if guard is None:
        return known.levels
    found = {stream: level.mean for stream, level in guard.levels.items() if level.mean is not None}
    if known.stage is Stage.SHADOW and trial.pairs >= LEAST:
        found["quality"] = trial.lost / trial.pairs
    return found


def levels_kept(state: RouteState, version: str, cause: str) -> RouteState:
    """For another time in service, which ends now for `cause`. Whoever promotes it after a level's own alarm has
    accepted where it stands."""
    kept = {stream: mean for stream, mean in levels(state, version).items() if LEVEL_ALARMS[stream] != cause}
    known = msgspec.structs.replace(state.versions[version], levels=kept)
    return msgspec.structs.replace(state, versions={**state.versions, version: known})
