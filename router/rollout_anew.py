"""What another policy makes new: an e-detector is one of a fixed null hypothesis, and a level one of a fixed measure;
with another, both start anew, for every version that is watched.

| what changed | starts anew |
|---|---|
| score, reference, judge, teachers | quality's detectors and level, the thresholds' tests: other values are measured |
| selective | the thresholds' tests |
| margin | the detector of quality below the margin; the level is of the same values, and stays |
| outcomes | the detector of outcomes |
| rollback_above | the detector of errors above it |
| slo_ms, block | the SLO's detectors and level |
| quantile | the detector of slow blocks above 1 - quantile |
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from router.policy import MEASURE
from router.rollout_state import RouteState, Stream
from router.sequential import Cusum
from router.sequential.outcomes import Baseline
from router.sequential.slo import Block

Policy = Mapping[str, Any]  # as it stands in the log

replace = msgspec.structs.replace


def differs(before: Policy, after: Policy, section: str, *keys: str) -> bool:
    """Whether any of these keys of a section has another value; without keys, whether anything in it has (a section
    may then be a list, as `teachers` is)."""
    old, new = before.get(section) or {}, after.get(section) or {}
    return any(old.get(key) != new.get(key) for key in keys) if keys else old != new


def measures_anew(before: Policy, after: Policy) -> bool:
    """Whether quality is measured otherwise."""
    return differs(before, after, "quality", *MEASURE) or differs(before, after, "teachers")


def detectors_anew(state: RouteState, before: Policy, after: Policy) -> RouteState:
    """The state with every detector and level new that is of something else now."""
    fresh: dict[str, Any] = {}
    forgotten: set[Stream] = set()
    others = measures_anew(before, after)
    if others:
        forgotten.add("quality")
    if others or differs(before, after, "quality", "margin"):
        fresh["quality"] = Cusum()
    if differs(before, after, "outcomes"):
        fresh |= {"outcomes": Cusum(), "baseline": Baseline()}
    if differs(before, after, "errors", "rollback_above"):
        fresh["errors"] = Cusum()
    if differs(before, after, "latency", "slo_ms", "block"):
        forgotten.add("slo")
    if differs(before, after, "latency", "slo_ms", "block", "quantile"):
        fresh |= {"slo": Cusum(), "block": Block()}
    guards = {
        version: replace(guard, **fresh, levels={s: v for s, v in guard.levels.items() if s not in forgotten})
        for version, guard in state.guards.items()
    }
    versions = {
        version: replace(known, levels={s: v for s, v in known.levels.items() if s not in forgotten})
        for version, known in state.versions.items()
    }
    return replace(state, guards=guards, versions=versions)
