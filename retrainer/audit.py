"""Who started what on which data with which seed, and what came of it: `{state}/cycles.jsonl`, only ever appended to.

A cycle's folder may be removed; its two lines here stay. They hold no text of a record.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from retrainer.ladder import Step, ladder_of
from retrainer.state import CycleState

AUDIT = "cycles.jsonl"
_EVENTS: tuple[Literal["began"], Literal["ended"]] = ("began", "ended")


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`event`: began | ended. `dataset`, `offsets`: of the data set, where one was built. `seconds`: of its phases,
    each without the attempts that were interrupted. `why`: of an override of the gate. `ladder`: what each student that
    was tried came to. `max_steps`, `held_out`: what the request said of the training's length, and of the file to judge
    by."""

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
    max_steps: int | None = None
    held_out: str | None = None
    why: str | None = None
    dataset: str | None = None
    offsets: tuple[int, int] | None = None
    outcome: str | None = None
    error: str | None = None
    seconds: float | None = None
    ladder: list[Step] = []


def note(state_folder: str | Path, states: Sequence[CycleState]) -> None:
    """Append that these cycles began and, where they have an outcome, ended, as far as no line says so yet.

    Called after a state is saved, and again for all of a route's: what a kill kept out is told then, and nothing twice.
    """
    path = Path(state_folder) / AUDIT
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        told = {(entry.cycle, entry.event) for entry in _decoded(file)}
        for state in states:
            for event in _EVENTS[: 1 if state.outcome is None else 2]:
                if (state.request.cycle_id, event) not in told:
                    # The first newline ends a line that was cut short.
                    file.write(b"\n" + msgspec.json.encode(_entry(state, event)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _entry(state: CycleState, event: Literal["began", "ended"]) -> Entry:
    request, dataset, student = state.request, state.phases.get("dataset") or {}, state.policy.get("student") or {}
    made = Entry(
        at=state.started_at,
        event="began",
        cycle=request.cycle_id,
        route=request.route,
        reason=request.reason,
        who=request.who,
        host=socket.gethostname(),
        base=student.get("base", ""),
        recipe=student.get("recipe", ""),
        seed=state.policy["retrain"]["seed"],
        max_steps=request.max_steps,
        held_out=request.held_out,
        why=request.override.why if request.override else None,
    )
    if event == "began":
        return made
    return msgspec.structs.replace(
        made,
        at=state.finished_at or time.time(),
        event="ended",
        dataset=dataset.get("digest"),
        offsets=(dataset["first"], dataset["end"]) if "first" in dataset else None,
        outcome=state.outcome,
        error=state.error,
        seconds=sum(state.seconds.values()),
        ladder=ladder_of(state),
    )


def entries(state_folder: str | Path) -> list[Entry]:
    """All of them, oldest first; a line that a crash cut short is passed over."""
    try:
        with (Path(state_folder) / AUDIT).open("rb") as file:
            return sorted(_decoded(file), key=lambda entry: entry.at)
    except FileNotFoundError:
        return []


def _decoded(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError:
            continue
