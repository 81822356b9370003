"""The log in memory, for tests: gone with the process."""

from collections.abc import Sequence

from collector.log import Entry, Record, Stream


class MemoryLog:
    """See EventLog."""

    def __init__(self) -> None:
        self._entries: dict[Stream, list[Entry]] = {stream: [] for stream in Stream}
        self._ids: dict[Stream, set[str]] = {stream: set() for stream in Stream}

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """See EventLog."""
        for stream, record in records:
            if record.id not in self._ids[stream]:
                self._ids[stream].add(record.id)
                self._entries[stream].append(
                    Entry(offset=self.end(stream), id=record.id, key=record.key, at=record.at, value=record.value)
                )

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str | None = None) -> list[Entry]:
        """See EventLog."""
        found = (entry for entry in self._entries[stream][max(offset, 0) :] if key is None or entry.key == key)
        return [entry for entry, _ in zip(found, range(limit), strict=False)]

    def end(self, stream: Stream) -> int:
        """See EventLog."""
        return len(self._entries[stream])

    def close(self) -> None:
        """See EventLog."""
