"""Where a cycle stands: one JSON file in its folder, replaced atomically after each phase, so that a killed cycle goes
on where it was. `{state}/cycles/<id>/` also holds its data set, checkpoint, adapter and merged model."""

import fcntl
import logging
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import write_atomic
from retrainer.errors import CycleBusy, CycleError
from retrainer.evaluation.gate import Override

log = logging.getLogger("retort.retrainer")

BUILDING = "building"  # where a cycle's data set is made, of texts: gone once it is there, or the cycle has ended
_STATE, _PROGRESS, _LOCK = "state.json", "progress.json", ".lock"
# Of a finished cycle; everything else is there to go on with. `wandb`: what its server has not had yet.
_KEPT = {_STATE, _PROGRESS, _LOCK, "dataset", "order.json", "export.log", "launch.log", "wandb"}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle is asked for. `cycle_id`: also the id of the version that comes of it. `held_out`: a JSON-lines
    file of examples that are evaluated on instead of the held-out part of the data set. `max_steps`: ends training
    early. `reason`: new_examples | schedule | drift | by_hand | evaluate | sweep. `who`: a person's name, or the
    retrainer."""

    cycle_id: str
    route: str
    reason: str = "by_hand"
    who: str = "retrainer"
    override: Override | None = None
    max_steps: int | None = None
    held_out: str | None = None


class CycleState(msgspec.Struct, kw_only=True):
    """`policy`: the route's, as it was when the cycle began; a resumed cycle keeps it. `phases`: each finished phase's
    result. `outcome`: registered | refused | skipped | failed; of a study passed | swept; None while unfinished.
    `seen`: the log offset up to which a skipped cycle found too little. `earlier`: the folder of the student of which
    this one is the next generation, as it was when the cycle began."""

    schema: int = 1
    request: Request
    policy: dict[str, Any]
    started_at: float
    phases: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    outcome: str | None = None
    error: str | None = None
    finished_at: float | None = None
    seen: int = 0
    earlier: str | None = None

    @property
    def read_to(self) -> int:
        """The log offset up to which the cycle has read; 0 of one that failed: its examples are still to be learnt."""
        if self.outcome == "failed":
            return 0
        return int(self.phases["dataset"]["end"]) if "dataset" in self.phases else self.seen


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far the running phase is; for people."""

    phase: str
    done: int
    total: int
    seconds_left: float | None

    @property
    def said(self) -> str:
        """In a few words."""
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return f"{self.phase} {self.done}/{self.total}{left}"


class Cycles:
    """The cycles of one state folder."""

    def __init__(self, state: str | Path) -> None:
        self._root = Path(state) / "cycles"
        self._known: dict[Path, tuple[int, CycleState | None]] = {}  # by file: its time of change, None: unreadable

    def folder(self, cycle_id: str) -> Path:
        """Where one cycle keeps its files. Raises CycleError for an id that is no plain name."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", cycle_id):
            raise CycleError(f"{cycle_id!r} is no cycle id; ids hold letters, digits, '.', '_' and '-'")
        return self._root / cycle_id

    def load(self, cycle_id: str) -> CycleState | None:
        """A cycle's state, or None before it has begun. Raises CycleError."""
        path = self.folder(cycle_id) / _STATE
        try:
            return msgspec.json.decode(path.read_bytes(), type=CycleState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise CycleError(f"{path} can't be read: {error}") from error

    def save(self, state: CycleState) -> None:
        """Write a cycle's state, durably."""
        folder = self.folder(state.request.cycle_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / _STATE, msgspec.json.encode(state))

    def of(self, route: str) -> list[CycleState]:
        """A route's cycles, oldest first; a file is read again only after a change. One that can't be read is told
        once and passed over: the other cycles go on."""
        self._known = {path: self._read(path) for path in self._root.glob(f"*/{_STATE}")}
        states = [state for _, state in self._known.values() if state is not None and state.request.route == route]
        return sorted(states, key=lambda s: s.started_at)

    def ended_at(self, route: str) -> float:
        """When a route's latest cycle ended; 0 where none has."""
        return max((state.finished_at or 0.0 for state in self.of(route)), default=0.0)

    def reached(self, cycle_id: str) -> tuple[int, float]:
        """How far a cycle's stored work has come: the number of its finished phases, and when (Unix seconds) a training
        of it was saved last."""
        state, saved = self.load(cycle_id), 0.0
        for file in self.folder(cycle_id).rglob("checkpoint.safetensors"):
            with suppress(OSError):  # its stage has just ended
                saved = max(saved, file.stat().st_mtime)
        return len(state.phases) if state else 0, saved

    def _read(self, path: Path) -> tuple[int, CycleState | None]:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:  # removed just now
            return 0, None
        known = self._known.get(path)
        if known is not None and known[0] == changed:
            return known
        try:
            return changed, self.load(path.parent.name)
        except CycleError as error:
            log.error("retrainer.cycle_unreadable", extra={"file": str(path), "error": str(error)})
            return changed, None

    def report(self, cycle_id: str, standing: Standing) -> None:
        """Say how far the running phase is."""
        folder = self.folder(cycle_id)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_PROGRESS}.tmp"
        temporary.write_bytes(msgspec.json.encode(standing))
        temporary.replace(folder / _PROGRESS)

    def standing(self, cycle_id: str) -> Standing | None:
        """What `report` said last."""
        try:
            return msgspec.json.decode((self.folder(cycle_id) / _PROGRESS).read_bytes(), type=Standing)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    @contextmanager
    def lock(self, cycle_id: str) -> Iterator[None]:
        """Hold the cycle against other processes; the kernel gives it back however this one ends. Raises CycleBusy."""
        folder = self.folder(cycle_id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CycleBusy(f"another process works on cycle {cycle_id}") from None
            yield

    def trim(self, route: str, *, needed: Collection[Path]) -> None:
        """Remove what finished cycles of a route have no more use for, as their weights; but not what is `needed`,
        resolved paths."""
        for state in self.of(route):
            if state.outcome is not None:
                folder = self.folder(state.request.cycle_id).resolve()
                kept = _KEPT - {"dataset"} if state.outcome == "failed" else _KEPT
                for path in folder.iterdir():
                    if path.name not in kept and not any(path in (other, *other.parents) for other in needed):
                        _remove(path)


def _remove(path: Path) -> None:
    """As far as that can be done: what stays is in nobody's way."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def new_id(route: str, *, now: float | None = None) -> str:
    """A new cycle's and version's id: `<route>-20260102-030405-9f3c`, safe in a URL and as a folder's name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", route).strip("-") or "route"
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{plain[:80]}-{stamp}-{secrets.token_hex(2)}"
