"""The log's interactions, as those read them who learn from them, count them or take them out."""

import math
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from collector.log import Entry, EventLog, Stream
from collector.open_log import open_log
from collector.record import Interaction, decode, sealed
from collector.subjects import SubjectKeys, open_subjects
from router import Config

PAGE = 1000


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

    def opened(self, entries: list[Entry]) -> Iterator[tuple[int, Interaction]]:
        """What stands in these entries, with their offsets. Raises LogError."""
        subjects = {entry.subject for entry in entries if sealed(entry.value)}
        keys, erased = self._keys.known(subjects), self._keys.erased(subjects)
        for entry in entries:
            if not sealed(entry.value):
                yield entry.offset, decode(entry.value)
            elif entry.subject in keys and entry.at > erased.get(entry.subject, -math.inf):
                yield entry.offset, decode(entry.value, keys[entry.subject])

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


def open_interactions(config: Config) -> Interactions:
    """A configuration's. Raises LogError."""
    log = open_log(config.log, kafka=config.kafka)
    try:
        return Interactions(log, open_subjects(config.subjects))
    except BaseException:
        log.close()
        raise
