"""A route's frozen regression suite: examples of early test parts that are never trained on, so that what later
students forget shows. It grows until it is full, and stays as it then is, as long as its teachers teach; it outlives
the log's retention."""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from exporters.models import write_atomic
from retrainer.data.curate import Example
from retrainer.data.frames import Frames
from retrainer.data.held_out import read_held_out
from retrainer.data.minhash import PERMUTATIONS, Marks, Sketch, sketch
from retrainer.errors import CycleError

_decoder = msgspec.json.Decoder(Example)


def suite_file(state: str | Path, route: str) -> Path:
    """Where a state folder keeps a route's."""
    return Path(state) / "regression" / f"{route.encode().hex()}.jsonl"  # a route's name may hold any character


def suite_files(state: str | Path) -> list[Path]:
    """All that a state folder keeps, of routes that the configuration no longer has, too."""
    return sorted((Path(state) / "regression").glob("*.jsonl"))


def read_suite(path: Path) -> list[Example]:
    """Its examples; none where there is no file yet. Raises CycleError."""
    try:
        return [_decoder.decode(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise CycleError(f"the regression suite {path} can't be read: {error}") from error


def grow(path: Path, test: Iterable[Example], most: int) -> int:
    """Fill up the suite from a test part, drawn evenly, always the same; returns how many it then has."""
    kept = read_suite(path)
    known = {example.id for example in kept}
    new = (msgspec.structs.replace(example, weight=1.0) for example in test if example.id not in known)
    added = heapq.nsmallest(max(0, most - len(kept)), new, key=lambda e: _digest(e.id))
    if added:
        _write(path, [*kept, *added])
    return len(kept) + len(added)


def keep_taught(path: Path, teachers: Collection[str]) -> None:
    """Take out what others than these have answered: they are no reference any more. Raises CycleError."""
    kept = read_suite(path)
    left = [example for example in kept if not example.teacher or example.teacher in teachers]
    if len(left) < len(kept):
        _write(path, left)


def remove(path: Path, subject: str, ids: Collection[str] = ()) -> int:
    """Take out what is of a hashed subject, or of these records; returns how many there were. Raises CycleError."""
    kept = read_suite(path)
    left = [example for example in kept if not example.is_of(subject, ids)]
    if len(left) < len(kept):
        _write(path, left)
    return len(kept) - len(left)


def guards(suite: Path | None, held_out: Path | None, frames: Frames) -> dict[str, "Guard"]:
    """By the reason for which they keep examples out of the training: of a route's suite, and of an operator's file of
    records to judge by. `frames`: the route's, of which more may become known. Raises CycleError."""
    known = {
        "regression": read_suite(suite) if suite is not None else [],
        "held_out_file": read_held_out(held_out) if held_out is not None else [],
    }
    return {reason: Guard(examples, frames) for reason, examples in known.items() if examples}


class Guard:
    """Knows what is too near to examples that measure to be trained on."""

    def __init__(self, measuring: Sequence[Example], frames: Frames) -> None:
        self._measuring, self._frames = measuring, frames
        self._made: tuple[int, Marks] | None = None

    def near(self, found: Sketch) -> bool:
        """Whether a prompt with this sketch equals one of them, or is a near-duplicate of one."""
        return bool(found.alike(self._marks()).any())

    def _marks(self) -> Marks:
        known = len(self._frames.known)
        if self._made is None or self._made[0] != known:
            rows = [sketch(self._frames.text(example.messages)).marks for example in self._measuring]
            self._made = known, np.array(rows, dtype=np.uint8).reshape(len(rows), PERMUTATIONS)
        return self._made[1]


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"suite:{name}".encode()).digest()


def _write(path: Path, examples: Iterable[Example]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, b"".join(msgspec.json.encode(e) + b"\n" for e in examples))
