"""The log behind one interface: `sqlite://` for one machine, `kafka://` for many, `memory://` for tests.

A stream's records have one order for each key (the route), and offsets are of that order.
"""

from collections.abc import Coroutine, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec


class Stream(StrEnum):
    """Interactions (scrubbed text), evidence (no text), quarantine (metadata of what could not be scrubbed), feedback
    (what clients reported, by request id: outcomes, and right answers, scrubbed)."""

    INTERACTIONS = "interactions"
    EVIDENCE = "evidence"
    QUARANTINE = "quarantine"
    FEEDBACK = "feedback"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is appended. `id` is unique in its stream; `key` (the route) decides the order; `at`: Unix seconds, from
    which its retention is counted; `subject`: hashed, whose data it is."""

    id: str
    key: str
    at: float
    value: bytes
    subject: str = ""


Records = list[tuple[Stream, Record]]
Later = Coroutine[Any, Any, Records]  # what is to be appended when it is known


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its place; offsets rise, and may leave gaps."""

    offset: int
    id: str
    key: str
    at: float
    value: bytes
    subject: str = ""


class Consumer(Protocol):
    """One member of a group that reads a stream together: each entry goes to one member, and comes again to some member
    until it is committed. In the order of its key, unless the members change meanwhile."""

    def poll(self, limit: int = 1000, *, seconds: float = 1.0) -> list[Entry]:
        """The next entries, of any keys; waits so long for the first. Raises LogError."""

    def commit(self) -> None:
        """All that was polled is done. Raises LogError."""

    def lag(self) -> dict[str, int]:
        """How far behind this member is: by key, of those it has now, how many offsets (entries, and gaps) it has not
        polled yet. Keys without any may be left out. Raises LogError."""

    def close(self) -> None:
        """Leave the group; what was not committed goes to others."""


class EventLog(Protocol):
    """Append and read; one appender at a time (the collector), any number of readers."""

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """Append all or nothing, durably. A record whose id its stream has already is left out.

        Kafka knows a key's newest ids alone, at least 200,000. Raises LogFull, LogError.
        """

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> list[Entry]:
        """At most `limit` entries of a key from `offset` on, in order. Raises LogError."""

    def find(self, stream: Stream, name: str, *, key: str) -> Entry | None:
        """A key's entry with this id, wherever it was appended; None where there is none (any more).

        Kafka knows a key's newest ids alone, at most 200,000 when it is first asked. Raises LogError.
        """

    def end(self, stream: Stream, *, key: str) -> int:
        """The offset after the last entry of a key. Raises LogError."""

    def keys(self, stream: Stream) -> list[str]:
        """The keys that a stream has entries of, sorted. Raises LogError."""

    def expire(self, stream: Stream, *, key: str, before: float) -> None:
        """Forget what comes before a key's first entry that is not older than `before` (Unix seconds).

        Raises LogError.
        """

    def erase(self, stream: Stream, *, subject: str) -> list[Entry]:
        """Remove a subject's entries of all keys; returns them without their values. Raises LogError.

        Kafka's broker removes them with its next compaction; until then they may still be read.
        """

    def scour(self, *, seconds: float) -> bool:
        """Leave nothing in this machine's files of what expired or was erased; False where a reader kept it from that
        for so long. Nothing is appended meanwhile. Raises LogError."""

    def consumer(self, stream: Stream, *, group: str) -> Consumer:
        """Join a group. Raises LogError."""

    def close(self) -> None:
        """Release what is held."""
