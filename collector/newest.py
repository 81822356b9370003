"""Of the right answers to each request the newest one, on disk: there may be as many as requests."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from collector.record import RightAnswer

_TABLE = """
CREATE TABLE IF NOT EXISTS right_answers (request_id TEXT PRIMARY KEY, at REAL NOT NULL, message BLOB NOT NULL)
"""
_TAKE = """
INSERT INTO right_answers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, message = excluded.message
    WHERE excluded.at >= at
"""
_OF = "SELECT request_id, message FROM right_answers WHERE request_id IN (SELECT value FROM json_each(?))"


class NewestRight:
    """In a database of its user's, who commits."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(_TABLE)

    def take(self, right: RightAnswer) -> None:
        """One more; of those of one time the last counts."""
        self._db.execute(_TAKE, (right.request_id, right.at, msgspec.json.encode(right.message)))

    def of(self, request_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The messages, by the requests' ids, of those that have one."""
        found = self._db.execute(_OF, (msgspec.json.encode(request_ids).decode(),))
        return {request_id: msgspec.json.decode(message) for request_id, message in found}
