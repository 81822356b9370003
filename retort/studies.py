"""Where evaluations and sweeps of a route work: beside its cycles, so that they register nothing and route nothing."""

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retort.errors import StartError
from retrainer import Cycles, CycleState, Request
from retrainer.audit import AUDIT, note
from retrainer.cycle import begin
from retrainer.state import new_id
from router import Config, complaints


def study_config(config: Config, route: str, *, name: str, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """The configuration of a study: a state folder of its own (the log and the registry stay the same), with the route
    changed: `{"student": {"base": ...}}`. Converted base models are shared. Raises StartError."""
    if route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    given = config.model_dump(mode="json")
    policy = given["routes"][route]
    for key, values in changes.items():
        policy[key] = {**(policy[key] or {}), **values}
    student = policy["student"]
    if student is not None:
        student.setdefault("engine", next(iter(given["engines"]), "local"))
    given["engines"] = given["engines"] or {"local": {}}
    said = hashlib.sha256(repr([name, sorted(policy.items())]).encode()).hexdigest()[:12]
    folder = folder_of(config, route) / f"{name}-{said}"
    given["state"] = str(folder)
    try:
        made = Config.model_validate(given)
    except ValidationError as error:
        raise StartError("\n".join(complaints(error))) from error
    models = Path(config.state) / "models"
    models.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(models.absolute(), target_is_directory=True)
    if not (folder / AUDIT).is_symlink():
        (folder / AUDIT).symlink_to((Path(config.state) / AUDIT).absolute())  # one log says who trained on what
    return made


def begun(study: Config, route: str, *, reason: str, who: str, max_steps: int | None = None) -> CycleState:
    """A study's training in the audit log: one that was killed goes on under its id. Raises CycleError."""
    cycles = Cycles(study.state)
    killed = next((state.request for state in cycles.of(route) if state.outcome is None), None)
    fresh = Request(cycle_id=new_id(route), route=route, reason=reason, who=who, max_steps=max_steps)
    return begin(study, cycles, killed or fresh)


def ended(study: Config, state: CycleState, outcome: str, *, error: str | None = None) -> None:
    """Tell the audit log how a study's training ended, where nothing has told it."""
    if state.outcome is None:
        state.outcome, state.error, state.finished_at = outcome, error, time.time()
        Cycles(study.state).save(state)
        note(study.state, [state])


def folder_of(config: Config, route: str) -> Path:
    """A route's name may hold any character, a folder's may not."""
    return Path(config.state) / "studies" / route.encode().hex()


def forget(config: Config, routes: list[str]) -> None:
    """Remove what studies keep of these routes' records, and with it their results."""
    for route in routes:
        shutil.rmtree(folder_of(config, route), ignore_errors=True)
