"""Who started what on which data with which seed, and what came of it: `{state}/cycles.jsonl`, only ever appended to.

A cycle's folder may be removed; its two lines here stay. They hold no text of a record.
"""

import os
import socket
import time
from pathlib import Path

import msgspec

from retrainer.ladder import Step, ladder_of
from retrainer.state import CycleState
from router.policy import RoutePolicy

_FILE = "cycles.jsonl"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`event`: began | ended. `dataset`, `offsets`: of the data set, once there is one. `seconds`: of work, over all
    resumptions. `why`: of an override of the gate. `ladder`: what each student that was tried came to."""

    at: float
    event: str
    cycle: str
    route: str
    reason: str
    who: str
    host: str
    base: str
    recipe: str
    seed: int
    why: str | None = None
    dataset: str | None = None
    offsets: tuple[int, int] | None = None
    outcome: str | None = None
    error: str | None = None
    seconds: float | None = None
    ladder: list[Step] = []


def note(state_folder: str | Path, state: CycleState) -> None:
    """Append that a cycle began or, where it has an outcome, ended."""
    policy = RoutePolicy.model_validate(state.policy)
    request, dataset = state.request, state.phases.get("dataset")
    entry = Entry(
        at=time.time(),
        event="began" if state.outcome is None else "ended",
        cycle=request.cycle_id,
        route=request.route,
        reason=request.reason,
        who=request.who,
        host=socket.gethostname(),
        base=policy.student.base if policy.student else "",
        recipe=policy.student.recipe if policy.student else "",
        seed=policy.retrain.seed,
        why=request.override.why if request.override else None,
        dataset=dataset["digest"] if dataset else None,
        offsets=(dataset["first"], dataset["end"]) if dataset else None,
        outcome=state.outcome,
        error=state.error,
        seconds=None if state.outcome is None else sum(state.seconds.values()),
        ladder=[] if state.outcome is None else ladder_of(state),
    )
    path = Path(state_folder) / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write, so that lines of two processes never mix; a newline before it ends one that a crash cut short.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, b"\n" + msgspec.json.encode(entry) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entries(state_folder: str | Path) -> list[Entry]:
    """All of them, oldest first; a line that a crash cut short is passed over."""
    try:
        lines = (Path(state_folder) / _FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError:
            continue
    return found
