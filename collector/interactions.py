"""The log's interactions, as those read them who learn from them, count them or take them out."""

import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from collector.errors import RecordUnreadable
from collector.frames import Reported
from collector.log import Entry, EventLog, Stream
from collector.open_log import open_log
from collector.record import Interaction, RightAnswer, decode, decode_right, sealed
from collector.subjects import SubjectKeys, open_subjects
from router import Config

PAGE = 1000
RUN = 50  # records of a spread that stand side by side
LATEST = 20_000  # of the log's interactions, that traffic, prices and lengths are measured on

T = TypeVar("T")

_report: msgspec.msgpack.Decoder[Reported] = msgspec.msgpack.Decoder(Reported)


class Interactions:
    """Reads a log's interactions; what was erased is passed over. Close it. `log`: what it reads, and its other
    streams."""

    def __init__(self, log: EventLog, keys: SubjectKeys) -> None:
        self.log = log
        self._keys = keys

    def of(self, route: str, *, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Interaction]]:
        """A route's interactions in [start, end), in order, with their offsets. Raises LogError."""
        while page := self.log.read(Stream.INTERACTIONS, start, PAGE, key=route):
            yield from self.opened([entry for entry in page if end is None or entry.offset < end])
            start = page[-1].offset + 1
            if end is not None and start >= end:
                return

    def latest(self, route: str) -> Iterator[Interaction]:
        """A route's interactions among its last LATEST offsets, in order. Raises LogError."""
        return (record for _, record in self.of(route, start=max(self.end(route) - LATEST, 0)))

    def spread(self, route: str, *, start: int, end: int, most: int) -> Iterator[Interaction]:
        """At most about `most` of a route's interactions in [start, end), in order, in runs of RUN at even distances.
        Raises LogError."""
        step = max(1, (end - start) * RUN // most)
        at = start
        for wanted in range(start, end, step):
            entries = self.log.read(Stream.INTERACTIONS, max(at, wanted), RUN, key=route) if at < wanted + step else []
            yield from (record for _, record in self.opened([entry for entry in entries if entry.offset < end]))
            at = entries[-1].offset + 1 if entries else at

    def find(self, route: str, request_id: str) -> Interaction | None:
        """A route's interaction with this id, as far as the log finds it. Raises LogError."""
        entry = self.log.find(Stream.INTERACTIONS, request_id, key=route)
        return next((record for _, record in self.opened([entry] if entry else [])), None)

    def right_answers(self, route: str, *, start: int = 0, end: int | None = None) -> Iterator[tuple[int, RightAnswer]]:
        """The right answers that a route's clients reported, in [start, end) of the stream of feedback, with their
        offsets. Raises LogError."""
        while page := self.log.read(Stream.FEEDBACK, start, PAGE, key=route):
            found = [(entry, _answer(entry)) for entry in page if end is None or entry.offset < end]
            yield from self._unsealed([(entry, answer) for entry, answer in found if answer], decode_right)
            start = page[-1].offset + 1
            if end is not None and start >= end:
                return

    def opened(self, entries: list[Entry]) -> Iterator[tuple[int, Interaction]]:
        """What stands in these entries, with their offsets. Raises LogError."""
        yield from self._unsealed([(entry, entry.value) for entry in entries], decode)

    def _unsealed(
        self, values: list[tuple[Entry, bytes]], decoded: Callable[[bytes, bytes | None], T]
    ) -> Iterator[tuple[int, T]]:
        subjects = {entry.subject for entry, value in values if sealed(value)}
        keys, erased = self._keys.known(subjects), self._keys.erased(subjects)
        for entry, value in values:
            if not sealed(value):
                yield entry.offset, decoded(value, None)
            elif entry.subject in keys and entry.at > erased.get(entry.subject, -math.inf):
                yield entry.offset, decoded(value, keys[entry.subject])

    def end(self, route: str) -> int:
        """The offset after a route's last one. Raises LogError."""
        return self.log.end(Stream.INTERACTIONS, key=route)

    def close(self) -> None:
        """Release what is held."""
        self.log.close()
        self._keys.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _answer(entry: Entry) -> bytes:
    try:
        return _report.decode(entry.value).answer
    except msgspec.MsgspecError as error:
        raise RecordUnreadable(f"the report {entry.id} of the log can't be read: {error}") from error


def open_interactions(config: Config) -> Interactions:
    """A configuration's. Raises LogError."""
    log = open_log(config.log, kafka=config.kafka)
    try:
        return Interactions(log, open_subjects(config.subjects))
    except BaseException:
        log.close()
        raise
