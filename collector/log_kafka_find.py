"""Finding a record of a topic by its id: Kafka has no index, so one is made of the newest, when first asked for."""

import threading

from collector.log import Entry
from collector.log_kafka_append import NEWEST, PAGE, tail
from collector.log_kafka_read import Reader, entry


class Finder:
    """One topic's ids and where they stand, also those that others appended; 2 * NEWEST at most, each about 150 bytes.
    Safe to use from several threads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._next: int | None = None
        self._new: dict[int, int] = {}  # an id's hash: its offset
        self._old: dict[int, int] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Entry | None:
        """The entry with this id. Raises LogError."""
        with self._lock:
            offset = self._offset(name)
            if offset is None:
                self._catch_up()
                offset = self._offset(name)
        page = [] if offset is None else self._reader.read(offset, 1)
        return next((one for one in page if one.id == name), None)

    def _offset(self, name: str) -> int | None:
        return self._new.get(hash(name), self._old.get(hash(name)))

    def _catch_up(self) -> None:
        end = self._reader.end()
        if self._next is None:
            self._next = tail(self._reader, end)
        while self._next < end and (page := self._reader.messages(self._next, PAGE)):
            for one in page:
                if (made := entry("", one)) is not None:
                    self._add(hash(made.id), made.offset)
            self._next = page[-1].offset + 1

    def _add(self, place: int, offset: int) -> None:
        if len(self._new) >= NEWEST:
            self._old, self._new = self._new, {}
        self._new[place] = offset
