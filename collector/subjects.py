"""Whose data a record is: hashed names, and a key of each, with which its records are sealed.

Destroying a subject's key erases what was sealed with it wherever it stands: in the log, on a broker, in backups. The
keys therefore have a database of their own, which must not be kept in backups for longer than erased data may live.
"""

import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from collector.errors import LogError
from router import Database, RouterError, open_database

KEY_BYTES = 32
_DIGEST_BYTES = 16
_SCHEMA = (
    "CREATE TABLE subjects (subject TEXT PRIMARY KEY, key BLOB NOT NULL, made REAL NOT NULL);"
    "CREATE TABLE salt (number INTEGER PRIMARY KEY, value BLOB NOT NULL)",
)


class SubjectKeys:
    """Everything raises LogError where the database can't be used."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._salt = b""

    def hashed(self, name: str) -> str:
        """32 hex digits in place of a subject's name; the same wherever this database is used."""
        with _translated():
            if not self._salt:
                with self._db.transaction() as session:
                    fresh = secrets.token_bytes(KEY_BYTES)
                    session.execute("INSERT INTO salt VALUES (1, ?) ON CONFLICT DO NOTHING", fresh)
                    self._salt = bytes(session.rows("SELECT value FROM salt")[0][0])
        data = name.encode("utf-8", "surrogatepass")
        return blake2b(data, key=self._salt, digest_size=_DIGEST_BYTES).hexdigest()

    def key(self, subject: str) -> bytes:
        """The key of a hashed subject; made at its first use."""
        with _translated():
            found = self._db.read("SELECT key FROM subjects WHERE subject = ?", subject)
            if not found:
                with self._db.transaction() as session:
                    fresh = secrets.token_bytes(KEY_BYTES)
                    session.execute(
                        "INSERT INTO subjects VALUES (?, ?, ?) ON CONFLICT DO NOTHING", subject, fresh, time.time()
                    )
                    found = session.rows("SELECT key FROM subjects WHERE subject = ?", subject)
            return bytes(found[0][0])

    def known(self, subjects: Collection[str]) -> dict[str, bytes]:
        """The keys of these hashed subjects, as far as there are any."""
        if not subjects:
            return {}
        places = ", ".join("?" * len(subjects))
        with _translated():
            rows = self._db.read(f"SELECT subject, key FROM subjects WHERE subject IN ({places})", *subjects)  # noqa: S608
        return {subject: bytes(key) for subject, key in rows}

    def destroy(self, subject: str) -> bool:
        """Destroy a hashed subject's key, for good; whether there was one."""
        with _translated():
            with self._db.transaction() as session:
                gone = session.execute("DELETE FROM subjects WHERE subject = ?", subject)
            self._db.scour("subjects")
        return gone > 0

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def open_subjects(url: str) -> SubjectKeys:
    """The keys at `sqlite:///PATH` or `postgresql://...`. Raises LogError."""
    with _translated():
        return SubjectKeys(open_database(url, _SCHEMA, "subjects"))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RouterError as error:
        raise LogError(str(error)) from error
