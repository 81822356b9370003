"""The log in one SQLite file: WAL, one transaction an append, synchronous=FULL, so that what is acknowledged stays."""

import errno
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any

from collector.errors import LogError, LogFull
from collector.log import Entry, Record, Stream
from collector.log_sqlite_group import COLUMNS, SqliteConsumer, entry
from router import private_database
from router.sql_sqlite import overwritten


def _table(stream: str) -> str:
    return (
        f"CREATE TABLE {stream} (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, "
        f"at REAL NOT NULL, value BLOB NOT NULL); CREATE INDEX {stream}_by_key ON {stream} (key, number);"
    )


def _subject(stream: str) -> str:
    return (
        f"ALTER TABLE {stream} ADD COLUMN subject TEXT NOT NULL DEFAULT '';"
        f"CREATE INDEX {stream}_by_subject ON {stream} (subject) WHERE subject != '';"
    )


# One script a schema version; a script that has run anywhere never changes.
_SCHEMA = (
    "".join(map(_table, ("interactions", "evidence", "quarantine"))),
    _table("feedback"),
    "".join(map(_subject, ("interactions", "evidence", "quarantine", "feedback")))
    + "CREATE TABLE groups (stream TEXT NOT NULL, name TEXT NOT NULL, next INTEGER NOT NULL, holder TEXT NOT NULL, "
    "until REAL NOT NULL, PRIMARY KEY (stream, name))",
)


class SqliteLog:
    """See EventLog. Safe to use from several threads; other processes may read meanwhile.

    `path`: a file, made where there is none; or ":memory:".
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            if isinstance(path, Path):
                private_database(path)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")  # what is expired or erased is not left on free pages
            self._migrate()

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """See EventLog."""
        with self._writing():
            for stream, r in records:
                self._db.execute(
                    f"INSERT OR IGNORE INTO {stream} (id, key, at, value, subject) VALUES (?, ?, ?, ?, ?)",
                    (r.id, r.key, r.at, r.value, r.subject),
                )

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> list[Entry]:
        """See EventLog."""
        return self._entries(
            f"SELECT {COLUMNS} FROM {stream} WHERE key = ? AND number >= ? ORDER BY number LIMIT ?", key, offset, limit
        )

    def find(self, stream: Stream, name: str, *, key: str) -> Entry | None:
        """See EventLog."""
        found = self._entries(f"SELECT {COLUMNS} FROM {stream} WHERE id = ? AND key = ?", name, key)
        return found[0] if found else None

    def end(self, stream: Stream, *, key: str) -> int:
        """See EventLog."""
        ((last,),) = self._rows(f"SELECT coalesce(max(number), 0) FROM {stream} WHERE key = ?", key)
        return int(last) + 1

    def keys(self, stream: Stream) -> list[str]:
        """See EventLog."""
        return [key for (key,) in self._rows(f"SELECT DISTINCT key FROM {stream} ORDER BY key")]

    def expire(self, stream: Stream, *, key: str, before: float) -> None:
        """See EventLog."""
        first = f"(SELECT min(number) FROM {stream} WHERE key = ?1 AND at >= ?2)"
        with self._writing():
            self._db.execute(
                f"DELETE FROM {stream} WHERE key = ?1 AND number < ifnull({first}, 1 << 62)", (key, before)
            )

    def erase(self, stream: Stream, *, subject: str) -> list[Entry]:
        """See EventLog."""
        with self._writing():
            found = self._entries(
                f"DELETE FROM {stream} WHERE subject = ? AND subject != '' RETURNING number, id, key, at, x'', subject",
                subject,
            )
        return sorted(found, key=lambda one: one.offset)

    def scour(self, *, seconds: float) -> bool:
        """See EventLog."""
        with self._lock, self._translated():
            return overwritten(self._db, seconds)

    def consumer(self, stream: Stream, *, group: str) -> SqliteConsumer:
        """See EventLog."""
        return SqliteConsumer(self._rows, stream, group)

    def close(self) -> None:
        """See EventLog."""
        with self._lock:
            self._db.close()

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._db.execute(query, values).fetchall()

    def _entries(self, query: str, *values: Any) -> list[Entry]:
        return list(starmap(entry, self._rows(query, *values)))

    def _migrate(self) -> None:
        with self._transaction():
            (done,) = self._db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(_SCHEMA[done:], start=done + 1):
                for statement in script.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, self._translated(), self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise LogFull(
                    f"no space is left for the log {self._path}; free some, nothing is lost meanwhile"
                ) from error
            raise LogError(f"the log {self._path} can't be used: {error}") from error
        except sqlite3.Error as error:
            raise LogError(f"the log {self._path} can't be used: {error}") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise LogFull(f"no space is left for the log {self._path}") from error
            raise LogError(f"the log {self._path} can't be used: {error}") from error
