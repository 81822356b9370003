"""A cycle that a person ends for good, running or waiting for its next attempt: a small file in its folder, which the
daemon looks for, and which whoever holds the cycle's lock makes its outcome."""

import time
from pathlib import Path

import msgspec

from exporters.models import write_atomic
from retrainer.audit import note
from retrainer.state import Cycles

_FILE = "cancel.json"


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants a cycle to end, and why."""

    who: str
    why: str


def cancel(cycles: Cycles, cycle_id: str, word: Word) -> None:
    """Ask whoever works on the cycle to end it."""
    write_atomic(cycles.folder(cycle_id) / _FILE, msgspec.json.encode(word))


def cancelled(cycles: Cycles, cycle_id: str) -> Word | None:
    """What `cancel` said of a cycle, if anything; of a file that can't be read, that somebody wants it to end."""
    path = cycles.folder(cycle_id) / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Word)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        return Word(who="somebody", why=f"{path} can't be read: {error}")


def end(state_folder: str | Path, cycles: Cycles, cycle_id: str, word: Word) -> None:
    """Make `cancelled` the outcome of a cycle that has none, and tell the audit log. Raises CycleBusy while its process
    runs."""
    with cycles.lock(cycle_id):
        state = cycles.load(cycle_id)
        if state is not None and state.outcome is None:
            state.outcome, state.error, state.finished_at = "cancelled", f"{word.who}: {word.why}", time.time()
            cycles.save(state)
            note(state_folder, [state])
