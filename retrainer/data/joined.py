"""Which groups a route's conversations stand in, kept beyond the log, so that none changes side.

A group's key is its first record's. Once retention or an erasure has removed that record, those that had joined it
would be groups of their own, or join others, and might stand on other sides. No text is kept, only hashes: 64 bits of a
conversation's keyed hash, of that with a prompt of it which stands in another's group, and the group's.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn, Self

from retrainer.errors import CycleError

_TABLE = "CREATE TABLE IF NOT EXISTS joined (spoken INTEGER PRIMARY KEY, grp TEXT NOT NULL)"


def joined_file(state: str | Path, route: str) -> Path:
    """Where a state folder keeps a route's."""
    return Path(state) / "joined" / f"{route.encode().hex()}.db"


class Joined:
    """One route's file; there is none before its first data set. Without a path nothing lasts. Use: as a context.
    Raises CycleError where the file can't be used."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db = self._open(path if path is not None and path.is_file() else ":memory:")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def group(self, spoken: int) -> str | None:
        """The group that a conversation stands in, if that is known. `spoken`: its hash."""
        try:
            row = self._db.execute("SELECT grp FROM joined WHERE spoken = ?", (spoken,)).fetchone()
        except sqlite3.Error as error:
            self._fail(error)
        return None if row is None else row[0]

    def keep(self, rows: Iterator[tuple[int, str]]) -> None:
        """Conversations' hashes, and their groups; what is known already stays."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open(self._path)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT OR IGNORE INTO joined VALUES (?, ?)", rows)
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._fail(error)

    def copy(self, path: Path) -> None:
        """Write another file of the same, whole also while somebody keeps more."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open(path)) as db:
            try:
                self._db.backup(db)
            except sqlite3.Error as error:
                self._fail(error)

    def _open(self, path: Path | str) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(path, timeout=60, isolation_level=None)
        except sqlite3.Error as error:
            self._fail(error)
        try:
            db.execute(_TABLE)
        except sqlite3.Error as error:
            db.close()
            self._fail(error)
        return db

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        raise CycleError(
            f"{self._path} can't be used ({error}); it holds which groups the route's conversations stand in. "
            "Remove it if it is lost: then those whose group's first record has gone may change side between training "
            "and test"
        ) from error
