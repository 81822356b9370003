"""Groups of readers of the log in SQLite: one member at a time has a group, until it closes or no longer polls.

Who holds a group stands in the table, so that members may be processes.
"""

import time
import uuid
from collections.abc import Callable
from itertools import starmap
from typing import Any

from collector.errors import LogError
from collector.log import Entry, Stream

COLUMNS = "number, id, key, at, value, subject"
HELD_SECONDS = 30.0  # a member that has not polled for so long has left
PAUSE = 0.05

Rows = Callable[..., list[tuple[Any, ...]]]  # runs one statement, with its values


def entry(number: int, name: str, key: str, at: float, value: bytes, subject: str) -> Entry:
    """The entry of a row of COLUMNS."""
    return Entry(offset=number, id=name, key=key, at=at, value=value, subject=subject)


class SqliteConsumer:
    """See Consumer."""

    def __init__(self, rows: Rows, stream: Stream, group: str) -> None:
        self._rows, self._stream, self._group = rows, stream, group
        self._name = uuid.uuid4().hex
        self._next: int | None = None  # where this member reads on; None while it does not hold the group

    def poll(self, limit: int = 1000, *, seconds: float = 1.0) -> list[Entry]:
        """See Consumer."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._held(limit)
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(PAUSE)

    def commit(self) -> None:
        """See Consumer."""
        if self._next is None:
            return
        changed = self._rows(
            "UPDATE groups SET next = ? WHERE stream = ? AND name = ? AND holder = ? RETURNING next",
            self._next, self._stream, self._group, self._name,
        )  # fmt: skip
        if not changed:
            self._next = None
            raise LogError(f"group {self._group!r} went to another member, who gets what was not committed")

    def lag(self) -> dict[str, int]:
        """See Consumer."""
        if self._next is None:
            return {}
        return dict(self._rows(f"SELECT key, count(*) FROM {self._stream} WHERE number >= ? GROUP BY key", self._next))

    def close(self) -> None:
        """See Consumer."""
        self._next = None
        self._rows("UPDATE groups SET until = 0 WHERE holder = ? RETURNING next", self._name)

    def _held(self, limit: int) -> list[Entry]:
        now = time.time()
        held = self._rows(
            "INSERT INTO groups VALUES (?, ?, 0, ?, ?) ON CONFLICT (stream, name) DO UPDATE SET "
            "holder = excluded.holder, until = excluded.until WHERE holder = excluded.holder OR until < ? "
            "RETURNING next",
            self._stream, self._group, self._name, now + HELD_SECONDS, now,
        )  # fmt: skip
        if not held:
            self._next = None
            return []
        if self._next is None:
            self._next = int(held[0][0])
        query = f"SELECT {COLUMNS} FROM {self._stream} WHERE number >= ? ORDER BY number LIMIT ?"
        found = list(starmap(entry, self._rows(query, self._next, limit)))
        if found:
            self._next = found[-1].offset + 1
        return found
