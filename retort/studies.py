"""Where evaluations and sweeps of a route work: beside its cycles, so that they register nothing and route nothing.

Each is one process's at a time, by a lock beside its folder. What an erasure writes into the lock's file says that the
study's records must go: whoever works on it ends at the next step, and removes them.
"""

import fcntl
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from retort.errors import StartError
from retrainer import Cycles, CycleState, Request
from retrainer.audit import AUDIT, note
from retrainer.begin import begin
from retrainer.data.joined import Joined, joined_file
from retrainer.data.suite import suite_file
from retrainer.state import new_id
from router import Config, complaints

SWEEP = "sweep"
POLL_SECONDS = 0.2
_ERASED = "ended by retort erase, which removed the records that it worked on"


def study_config(
    config: Config, route: str, *, name: str, changes: Mapping[str, Mapping[str, Any]], steps: int | None = None
) -> Config:
    """The configuration of a study: a state folder of its own (the log and the registry stay the same), with the route
    changed: `{"student": {"base": ...}}`. `steps`: that its trainings are cut off after. Raises StartError."""
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
    for engine in given["engines"].values():
        engine.pop("max_loaded", None)  # a study loads nothing there, and what it changes may need more
    said = hashlib.sha256(repr([name, steps, sorted(policy.items())]).encode()).hexdigest()[:12]
    given["state"] = str(folder_of(config, route) / f"{name}-{said}")
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        raise StartError("\n".join(complaints(error))) from error


@contextmanager
def at_work(config: Config, study: Config, route: str) -> Iterator[Callable[[], bool]]:
    """Hold a study against other processes; the kernel gives it back however this one ends. Its folder is made, and
    yielded is whether an erasure wants it gone. Raises StartError where another works on it, and where it was erased.
    """
    folder = Path(study.state)
    kind = "sweep" if _kind(folder) == SWEEP else "evaluation of the same student"
    with _opened(folder) as file:
        if not _locked(file):
            raise StartError(f"another {kind} of route {route!r} is at work; wait for its end, or end it (Ctrl-C)")
        if _unwanted(file):  # it was killed before it could end
            _remove(config, folder, file)
        _furnish(config, study, route)
        try:
            yield lambda: _unwanted(file)
        except Exception as error:
            if not _unwanted(file):
                raise
            raise StartError(
                f"route {route!r}: `retort erase` has removed records that this {kind.split()[0]} worked on, and it "
                "ended; repeat the command, which begins anew"
            ) from error
        finally:
            if _unwanted(file):
                _remove(config, folder, file)


def _furnish(config: Config, study: Config, route: str) -> None:
    """What a study shares with the route's own cycles: base models, the teacher's second answers, what was fetched from
    an object store, the audit log; and copies of the regression suite, which its data set is kept apart from, and fills
    up, as a cycle's would, and of which groups conversations stand in."""
    state, folder = Path(config.state), Path(study.state)
    folder.mkdir(parents=True, exist_ok=True)
    shared = ["models"] + ["consistency"] * (study.routes[route].retrain.data.consistency is not None)
    shared += ["artefacts"] * ("://" in study.artefacts)
    for name in shared:
        (state / name).mkdir(parents=True, exist_ok=True)
    for name in (*shared, AUDIT):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to((state / name).absolute())
    if not any(folder.rglob("dataset/dataset.json")):
        suite, copy = suite_file(state, route), suite_file(folder, route)
        copy.unlink(missing_ok=True)
        if suite.exists():
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(suite, copy)
        with Joined(joined_file(state, route)) as joined:
            joined.copy(joined_file(folder, route))


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


def route_of(config: Config, path: Path) -> str:
    """Of which route's studies something is."""
    return bytes.fromhex(path.relative_to(Path(config.state) / "studies").parts[0]).decode()


def forget(config: Config, routes: Collection[str], *, wait: float) -> list[str]:
    """Remove what studies keep of these routes' records, and with it their results. Those at work are told to end.
    Returns what has not ended after `wait` seconds."""
    left = [folder for route in sorted(routes) for folder in sorted(folder_of(config, route).glob("*"))]
    deadline, told = time.monotonic() + wait, False
    while left := [folder for folder in left if not _forgotten(config, folder)]:
        if time.monotonic() >= deadline:
            break
        if not told:
            told = True
            print(f"waiting for the end of {', '.join(_named(config, left))}", file=sys.stderr)
        time.sleep(POLL_SECONDS)
    for route in routes:
        with suppress(OSError):
            folder_of(config, route).rmdir()
    return _named(config, left)


def _forgotten(config: Config, folder: Path) -> bool:
    with _opened(folder) as file:
        if _locked(file):
            _remove(config, folder, file)
            return True
        if not _unwanted(file):
            file.write("erased\n")
        return False


def _named(config: Config, folders: Collection[Path]) -> list[str]:
    kinds = {(route_of(config, f), "sweep" if _kind(f) == SWEEP else "evaluation") for f in folders}
    return [f"the {kind} of route {route!r}" for route, kind in sorted(kinds)]


def _remove(config: Config, folder: Path, file: IO[str]) -> None:
    """All that the lock is of. Whoever holds it may."""
    route = route_of(config, folder)
    for one in [f for f in folder.parent.glob("*") if _kind(f) == _kind(folder)]:
        for state in Cycles(one).of(route):
            if state.outcome is None:
                state.outcome, state.error, state.finished_at = "cancelled", _ERASED, time.time()
                note(config.state, [state])
        shutil.rmtree(one)
    file.truncate(0)


def _kind(folder: Path) -> str:
    """What a lock is of: all sweeps of a route together, each evaluation by itself."""
    return SWEEP if folder.name.startswith(f"{SWEEP}-") else folder.name


def _opened(folder: Path) -> IO[str]:
    path = folder.parent.with_name(f"{folder.parent.name}.{_kind(folder)}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unwanted(file: IO[str]) -> bool:
    return Path(file.name).stat().st_size > 0
