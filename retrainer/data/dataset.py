"""A log range becomes a data set: filtered, deduplicated, grouped, split, and written with its lineage."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from collector.interactions import Interactions
from exporters.models import sync, write_atomic
from retrainer.data.curate import SIMILAR, Example, Side, example_of, group, newest_of_each, side
from retrainer.errors import CycleError, NotEnoughExamples

SAMPLES = 5
LEAST = 8  # examples on the training side and in the held-out part, under which nothing can be learnt or measured
_MANIFEST = "dataset.json"


class Dropped(msgspec.Struct, kw_only=True):
    """How many records a filter dropped, and the ids and offsets of the first few (no text)."""

    count: int = 0
    samples: list[dict[str, Any]] = []

    def add(self, record_id: str, offset: int) -> None:
        """Count one."""
        self.count += 1
        if len(self.samples) < SAMPLES:
            self.samples.append({"id": record_id, "offset": offset})


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Lineage of a data set. `digest`: sha256 over the three files. `first`, `end`: the range of log offsets that was
    read. `upstreams`: which teachers' answers it holds, `scrubbers`: by which scrubber versions they went."""

    schema: int = 1
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


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle trains on and is judged by."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    manifest: DatasetManifest

    @property
    def held_out(self) -> list[Example]:
        """Validation and test together: nothing is tuned on the validation part in a cycle, so both measure."""
        return self.validation + self.test


def build(
    interactions: Interactions,
    route: str,
    *,
    max_examples: int,
    fits: Callable[[Example], bool] = lambda _: True,
    end: int | None = None,
) -> Dataset:
    """Read the route's interactions up to `end`, and make the data set of the newest `max_examples` of them.

    `fits`: whether an example is short enough. The same log range gives the same data set, byte for byte.
    Raises NotEnoughExamples, and what the log raises.
    """
    end = interactions.end(route) if end is None else end
    found: list[Example] = []
    dropped: dict[str, Dropped] = {}
    upstreams: Counter[str] = Counter()
    scrubbers: Counter[str] = Counter()
    read = first = 0
    for offset, record in interactions.of(route, end=end):
        first = offset if read == 0 else first
        read += 1
        kept = example_of(record, offset)
        reason = kept.reason
        if kept.example is not None and not fits(kept.example):
            reason = "too_long"
        if reason is not None or kept.example is None:
            dropped.setdefault(reason or "unusable", Dropped()).add(record.id, offset)
            continue
        found.append(kept.example)
        upstreams.update(a.upstream or "?" for a in record.answers if a.arm == "teacher")
        scrubbers[record.scrubber] += 1
    unique, repeated = newest_of_each(found)
    grouped, torn = group(unique)
    newest = grouped[-max_examples:]
    for reason, examples in (("duplicate", repeated), ("torn", torn), ("too_old", grouped[:-max_examples])):
        for example in examples:
            dropped.setdefault(reason, Dropped()).add(example.id, example.offset)
    parts = {s: [e for e in newest if side(e.group) is s] for s in Side}
    manifest = DatasetManifest(
        route=route,
        digest=_digest(parts),
        first=first,
        end=end,
        read=read,
        counts={s.value: len(parts[s]) for s in Side},
        groups=len({e.group for e in newest}),
        dropped=dropped,
        upstreams=dict(sorted(upstreams.items())),
        scrubbers=dict(sorted(scrubbers.items())),
    )
    dataset = Dataset(
        train=parts[Side.TRAIN], validation=parts[Side.VALIDATION], test=parts[Side.TEST], manifest=manifest
    )
    if len(dataset.train) < LEAST or len(dataset.held_out) < LEAST:
        raise NotEnoughExamples(
            f"route {route!r}: {len(dataset.train)} examples to train on and {len(dataset.held_out)} held out, of "
            f"{read} records; at least {LEAST} of each are needed (dropped: "
            f"{', '.join(f'{k} {v.count}' for k, v in sorted(dropped.items())) or 'none'})",
            end=end,
        )
    return dataset


def write(dataset: Dataset, folder: Path) -> None:
    """Three JSON-lines files, then the manifest; the folder appears whole or not at all."""
    staging = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for part in Side:
        path = staging / f"{part.value}.jsonl"
        path.write_bytes(_lines(getattr(dataset, part.value)))
        sync(path)
    write_atomic(staging / _MANIFEST, msgspec.json.format(msgspec.json.encode(dataset.manifest)))
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    sync(folder.parent)


def load(folder: Path) -> Dataset:
    """Inverse of `write`. Raises CycleError where a file is gone or has changed."""
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=DatasetManifest)
        parts = {s: _read(folder / f"{s.value}.jsonl") for s in Side}
    except (OSError, msgspec.MsgspecError) as error:
        raise CycleError(f"the data set in {folder} can't be read: {error}") from error
    if _digest(parts) != manifest.digest:
        raise CycleError(f"the data set in {folder} is not what its manifest says; start a new cycle")
    return Dataset(train=parts[Side.TRAIN], validation=parts[Side.VALIDATION], test=parts[Side.TEST], manifest=manifest)


def ids(folder: Path) -> set[str]:
    """The ids of the records that a written data set is made of. Raises CycleError."""
    made = load(folder)
    return {example.id for part in (made.train, made.validation, made.test) for example in part}


def _read(path: Path) -> list[Example]:
    decoder = msgspec.json.Decoder(Example)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def _lines(examples: Sequence[Example]) -> bytes:
    return b"".join(msgspec.json.encode(e) + b"\n" for e in examples)


def _digest(parts: dict[Side, list[Example]]) -> str:
    whole = hashlib.sha256()
    for part in Side:
        whole.update(f"{part.value}\n".encode())
        whole.update(_lines(parts[part]))
    return f"sha256:{whole.hexdigest()}"
