"""SQLite: one file a store, WAL, one writer at a time."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import RegistryUnavailable
from router.private import private_database
from router.sql import Row, statements

WAIT_SECONDS = 10.0  # for another process's transaction


def overwritten(db: sqlite3.Connection, seconds: float) -> bool:
    """Write what was changed into the file and empty the write-ahead log, for with `secure_delete` what was deleted is
    nowhere then; False where readers of the state before it were in the way for so long."""
    ((wait,),) = db.execute("PRAGMA busy_timeout").fetchall()
    db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
    try:
        ((busy, _, _),) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {wait}")
    return not busy


class SqliteDatabase:
    """See Database. The number of the last schema script that ran is the file's `user_version`."""

    def __init__(self, path: Path, schema: tuple[str, ...], name: str) -> None:
        self._place = f"{name} {path}"
        self._lock = threading.RLock()
        try:
            if str(path) != ":memory:":
                private_database(path)
            self._db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise RegistryUnavailable(f"{self._place}: {error}") from error
        try:
            with self._translated():
                self._write_ahead()
                self._db.execute("PRAGMA secure_delete = ON")
            with self.transaction() as session:
                ((done,),) = session.rows("PRAGMA user_version")
                for number, script in enumerate(schema[done:], start=done + 1):
                    for statement in statements(script):
                        session.execute(statement)
                    session.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            self.close()
            raise

    def _write_ahead(self) -> None:
        """Of processes that open a new file at once, SQLite tells some at this that it is locked, without the wait."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def read(self, query: str, *arguments: object) -> list[Row]:
        """See Database."""
        with self._lock, self._translated():
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def transaction(self) -> Iterator["_Session"]:
        """See Database."""
        with self._lock, self._translated():
            if self._db.in_transaction:
                raise RegistryUnavailable(f"{self._place}: a transaction within a transaction")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield _Session(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def scour(self, table: str, *, seconds: float) -> bool:
        """See Database."""
        with self._lock, self._translated():
            return overwritten(self._db, seconds)

    def close(self) -> None:
        """See Database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RegistryUnavailable(f"{self._place}: {error}") from error


class _Session:
    """See Session."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, query: str, *arguments: object) -> int:
        """See Session."""
        return self._db.execute(query, arguments).rowcount

    def rows(self, query: str, *arguments: object) -> list[Row]:
        """See Session."""
        return self._db.execute(query, arguments).fetchall()
