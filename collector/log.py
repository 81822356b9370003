"""The interaction log behind one interface: `sqlite://` for one machine, `memory://` for tests."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec


class Stream(StrEnum):
    """Interactions (scrubbed text), evidence (no text), quarantine (metadata of what could not be scrubbed), feedback
    (outcomes that clients reported, by request id; no text)."""

    INTERACTIONS = "interactions"
    EVIDENCE = "evidence"
    QUARANTINE = "quarantine"
    FEEDBACK = "feedback"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is appended. `id` is unique in its stream; `key` (the route) decides the order."""

    id: str
    key: str
    at: float
    value: bytes


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its place in its stream; offsets rise, and may leave gaps."""

    offset: int
    id: str
    key: str
    at: float
    value: bytes


class EventLog(Protocol):
    """Append and read; one appender at a time (the collector), any number of readers."""

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """Append all or nothing, durably. A record whose id its stream has already is left out.

        Raises LogFull, LogError.
        """

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str | None = None) -> list[Entry]:
        """At most `limit` entries from `offset` on, in order; of one key if asked. Raises LogError."""

    def end(self, stream: Stream) -> int:
        """The offset after the last entry."""

    def close(self) -> None:
        """Release what is held."""
