"""A data set as it stands on disk: three files of JSON lines, and the manifest that says where they come from.

Examples are read when they are asked for: a data set of a million takes as little memory as one of a hundred.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

import msgspec

from exporters.models import staged, write_atomic
from retrainer.data.curate import SIMILAR, Example, Side
from retrainer.errors import CycleError

SAMPLES = 5
_MANIFEST = "dataset.json"
_decoder = msgspec.json.Decoder(Example)


class Dropped(msgspec.Struct, kw_only=True):
    """How many records a filter dropped, and the ids and offsets of the first few (no text). `held_out`: how many of
    them would have been measured with; where a record gives no example at all its side isn't known."""

    count: int = 0
    held_out: int = 0
    samples: list[dict[str, Any]] = []

    def add(self, record_id: str, offset: int, *, held_out: bool) -> None:
        """Count one."""
        self.count += 1
        self.held_out += held_out
        if len(self.samples) < SAMPLES:
            self.samples.append({"id": record_id, "offset": offset})


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Lineage of a data set. `digest`: sha256 over the three files. `first`, `end`: the range of log offsets that was
    read; `feedback_end`: up to where that of what clients reported was. `upstreams`: which teachers' answers it holds,
    `scrubbers`: by which scrubber versions went what could be learnt from.

    `settings`: of every filter. `files`: sha256 of the files that had a say. `newest_from`: the offset from
    which traffic is the newest, `newest`: how many held-out examples are of it. `imported`: examples of no traffic of
    this gateway. `corrections`: of the operator's file, how many are `given`, and how many `found` in the log.
    `added`: examples that are not of the log. `labels`: how far the answers are from production's, see
    retrainer.data.labels. `consistency`, `weights` (`held_out_*`: of what is measured with), `replayed`: see
    retrainer.data. There is no clock in it.
    """

    schema: int = 2
    route: str
    digest: str
    first: int
    end: int
    read: int
    counts: dict[str, int]
    groups: int
    dropped: dict[str, Dropped]
    upstreams: dict[str, int]
    scrubbers: dict[str, int]
    similar: float = SIMILAR
    settings: dict[str, Any] = {}
    files: dict[str, str] = {}
    newest_from: int = 0
    newest: int = 0
    replayed: int = 0
    corrected: int = 0
    corrections: dict[str, int] = {}
    imported: int = 0
    feedback_end: int = 0
    added: dict[str, int] = {}
    labels: dict[str, Any] = {}
    consistency: dict[str, Any] | None = None
    weights: dict[str, float] = {}


class Lines(Sequence[Example]):
    """The examples of a file of JSON lines, read one at a time; eight bytes of memory each."""

    def __init__(self, path: Path, *, owner: object = None) -> None:
        """`owner`: what keeps the file as long as it lives. Raises OSError."""
        self.path = path
        self._owner = owner
        self._starts = array("Q")
        at = 0
        for line in self.raw():
            self._starts.append(at)
            at += len(line)

    def raw(self) -> Iterator[bytes]:
        """The lines as they are, with their ends."""
        with self.path.open("rb") as file:
            yield from file

    def __iter__(self) -> Iterator[Example]:
        return map(_decoder.decode, self.raw())

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        chosen = range(len(self))[index]
        with self.path.open("rb") as file:
            if isinstance(chosen, range):
                return [self._read(file, number) for number in chosen]
            return self._read(file, chosen)

    def _read(self, file: Any, number: int) -> Example:
        file.seek(self._starts[number])
        return _decoder.decode(file.readline())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle trains on and is judged by."""

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    manifest: DatasetManifest

    @property
    def held_out(self) -> list[Example]:
        """Validation and test together. What may choose (`Job.choosing`) judges no student."""
        return [*self.validation, *self.test]

    @property
    def newest(self) -> list[Example]:
        """The held-out examples of the newest traffic, to be reported apart: what drifts shows there first."""
        held_out = chain(self.validation, self.test)
        since = self.manifest.newest_from
        return [example for example in held_out if example.offset >= since and not example.imported]


def write(dataset: Dataset, folder: Path) -> None:
    """Three JSON-lines files, then the manifest; the folder appears whole or not at all."""
    with staged(folder) as staging:
        for part in Side:
            with (staging / f"{part.value}.jsonl").open("wb") as file:
                file.writelines(_lines(getattr(dataset, part.value)))
        write_atomic(staging / _MANIFEST, msgspec.json.format(msgspec.json.encode(dataset.manifest)))


def load(folder: Path) -> Dataset:
    """Inverse of `write`. Raises CycleError where a file is gone or has changed."""
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=DatasetManifest)
        parts = {s: Lines(folder / f"{s.value}.jsonl") for s in Side}
        found = digest(parts)
    except (OSError, msgspec.MsgspecError) as error:
        raise CycleError(f"the data set in {folder} can't be read: {error}") from error
    if found != manifest.digest:
        raise CycleError(f"the data set in {folder} is not what its manifest says; start a new cycle")
    return Dataset(train=parts[Side.TRAIN], validation=parts[Side.VALIDATION], test=parts[Side.TEST], manifest=manifest)


def examples(folder: Path) -> Iterator[Example]:
    """Those of all parts of a written data set. Raises CycleError."""
    made = load(folder)
    return chain(made.train, made.validation, made.test)


def digest(parts: dict[Side, Sequence[Example]] | dict[Side, Lines]) -> str:
    """What identifies a data set: sha256 over its parts' names and lines."""
    whole = hashlib.sha256()
    for part in Side:
        whole.update(f"{part.value}\n".encode())
        for line in _lines(parts[part]):
            whole.update(line)
    return f"sha256:{whole.hexdigest()}"


def _lines(part: Iterable[Example]) -> Iterable[bytes]:
    return part.raw() if isinstance(part, Lines) else (msgspec.json.encode(e) + b"\n" for e in part)
