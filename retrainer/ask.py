"""`retrain now`: a request is a small file that the daemon picks up, so it survives a restart of either side."""

from pathlib import Path

import msgspec

from exporters.models import write_atomic
from retrainer.errors import CycleError
from retrainer.state import Request


def ask(state: str | Path, request: Request) -> None:
    """Ask the daemon of a state folder for a cycle; a request for the same route that still waits is replaced."""
    path = _path(state, request.route)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(request))


def asked(state: str | Path, route: str) -> Request | None:
    """The waiting request for a route. Raises CycleError where the file can't be read."""
    path = _path(state, route)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Request)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CycleError(f"{path} is no request: {error}") from error


def waits(state: str | Path, route: str) -> bool:
    """Whether a request for a route waits, one that can't be read too."""
    return _path(state, route).is_file()


def answered(state: str | Path, route: str) -> None:
    """Remove a route's request: its cycle has begun, and will be found again by its state."""
    _path(state, route).unlink(missing_ok=True)


def _path(state: str | Path, route: str) -> Path:
    # A route's name may hold any character, a file's may not.
    return Path(state) / "run" / "retrain" / f"{route.encode().hex()}.json"
