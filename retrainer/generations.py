"""Dense weights of finished cycles from which a later one learns: its route's earlier generation, and what a policy
names. They are in the cycles' folders, and stay there for as long as they are needed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrainer.state import Cycles
from router.config import Config
from router.policy import RoutePolicy

MERGED = "merged"  # a cycle's dense student


def earlier(cycles: Cycles, route: str, policy: RoutePolicy) -> str | None:
    """The folder of the route's last registered student, for the recipe `self` where no teacher is named; None where
    its dense weights are gone, or are of another base. (Of a ladder none are kept.)"""
    student = policy.student
    if student is None or student.recipe != "self" or policy.retrain.distil.teacher is not None:
        return None
    for state in reversed(cycles.of(route)):
        if state.outcome == "registered":
            folder = cycles.folder(state.request.cycle_id) / MERGED
            known = state.policy["student"]["base"] == student.base and (folder / "config.json").is_file()
            return str(folder) if known else None
    return None


def taught_by(policy: RoutePolicy, folder: str | None) -> RoutePolicy:
    """The route's policy, as if it named this teacher."""
    if folder is None:
        return policy
    distil = policy.retrain.distil.model_copy(update={"teacher": folder})
    return policy.model_copy(update={"retrain": policy.retrain.model_copy(update={"distil": distil})})


def needed(config: Config, cycles: Cycles) -> set[Path]:
    """All models that the routes' policies name, and those of unfinished cycles, as resolved paths."""
    names = {name for policy in config.routes.values() for name in _models(policy.model_dump(mode="json"))}
    for state in (state for route in config.routes for state in cycles.of(route) if state.outcome is None):
        names |= {*_models(state.policy), *filter(None, [state.earlier])}
    return {Path(name).expanduser().resolve() for name in names}


def _models(policy: Mapping[str, Any]) -> Iterator[str]:
    """Of a policy as it is stored, maybe by another version."""
    student, distil = policy.get("student") or {}, (policy.get("retrain") or {}).get("distil") or {}
    for part, keys in ((student, ("base", "ladder")), (distil, ("teacher", "teachers", "assistants"))):
        for key in keys:
            named = part.get(key) or ()
            for one in (named,) if isinstance(named, str) else named:
                yield one["base"] if isinstance(one, Mapping) else one  # a rung, with its recipe
