"""The log in one SQLite file: WAL, one transaction an append, synchronous=FULL, so that what is acknowledged stays."""

import errno
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from collector.errors import LogError, LogFull
from collector.log import Entry, Record, Stream


def _table(stream: str) -> str:
    return (
        f"CREATE TABLE {stream} (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, "
        f"at REAL NOT NULL, value BLOB NOT NULL); CREATE INDEX {stream}_by_key ON {stream} (key, number);"
    )


# One script a schema version; a script that has run anywhere never changes.
_SCHEMA = ("".join(map(_table, ("interactions", "evidence", "quarantine"))), _table("feedback"))


class SqliteLog:
    """See EventLog. Safe to use from several threads; other processes may read meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        """See EventLog."""
        with self._lock, self._translated(), self._transaction():
            for stream, r in records:
                self._db.execute(
                    f"INSERT OR IGNORE INTO {stream} (id, key, at, value) VALUES (?, ?, ?, ?)",  # noqa: S608 - an enum
                    (r.id, r.key, r.at, r.value),
                )

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str | None = None) -> list[Entry]:
        """See EventLog."""
        where, more = ("", ()) if key is None else (" AND key = ?", (key,))
        query = f"SELECT number, id, key, at, value FROM {stream} WHERE number >= ?{where} ORDER BY number LIMIT ?"  # noqa: S608 - an enum
        with self._lock, self._translated():
            rows = self._db.execute(query, (offset, *more, limit)).fetchall()
        return [Entry(offset=n, id=i, key=k, at=at, value=value) for n, i, k, at, value in rows]

    def end(self, stream: Stream) -> int:
        """See EventLog."""
        with self._lock, self._translated():
            (last,) = self._db.execute(f"SELECT coalesce(max(number), 0) FROM {stream}").fetchone()  # noqa: S608 - an enum
        return int(last) + 1

    def close(self) -> None:
        """See EventLog."""
        with self._lock:
            self._db.close()

    def _migrate(self) -> None:
        with self._transaction():
            (done,) = self._db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(_SCHEMA[done:], start=done + 1):
                for statement in script.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")

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
