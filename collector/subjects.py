"""Whose data a record is: hashed names, and a key of each, with which its records are sealed.

Destroying a subject's key erases what was sealed with it wherever it stands: in the log, on a broker, in backups. The
keys therefore have a database of their own, which must not be kept in backups for longer than erased data may live.
"""

import math
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from collector.errors import LogError
from router import Database, RouterError, open_database
from router.sql import Row

KEY_BYTES = 32
_DIGEST_BYTES = 16
_SCHEMA = (
    "CREATE TABLE subjects (subject TEXT PRIMARY KEY, key BLOB NOT NULL, made REAL NOT NULL);"
    "CREATE TABLE salt (number INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE erased (subject TEXT PRIMARY KEY, until REAL NOT NULL)",
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

    def key(self, subject: str, *, at: float = math.inf) -> bytes:
        """The key of a hashed subject, for what is kept since `at` (Unix seconds); made at its first use. What comes
        late, after its subject was erased, gets one that nobody has: it is erased from the beginning."""
        fresh = secrets.token_bytes(KEY_BYTES)
        with _translated():
            found, until = _standing(self._db.read, subject)
            if found is None:
                with self._db.transaction() as session:
                    found, until = _standing(session.rows, subject)
                    if found is None and at > until:
                        session.execute(
                            "INSERT INTO subjects VALUES (?, ?, ?) ON CONFLICT DO NOTHING", subject, fresh, time.time()
                        )
                        found, until = _standing(session.rows, subject)
        return fresh if found is None or at <= until else found

    def known(self, subjects: Collection[str]) -> dict[str, bytes]:
        """The keys of these hashed subjects, as far as there are any."""
        with _translated():
            return {subject: bytes(key) for subject, key in self._of(subjects, "SELECT subject, key FROM subjects")}

    def erased(self, subjects: Collection[str]) -> dict[str, float]:
        """Until when (Unix seconds) what is kept of these hashed subjects is erased; of those that ever were."""
        with _translated():
            return dict(self._of(subjects, "SELECT subject, until FROM erased"))

    def destroy(self, subject: str) -> bool:
        """Destroy a hashed subject's key; whether there was one. For good once `scour` has said so."""
        with _translated(), self._db.transaction() as session:
            session.execute(
                "INSERT INTO erased VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET until = excluded.until",
                subject, time.time(),
            )  # fmt: skip
            return session.execute("DELETE FROM subjects WHERE subject = ?", subject) > 0

    def scour(self, *, seconds: float) -> bool:
        """Leave no destroyed key in the database's files; False where a reader kept it from that for so long."""
        with _translated():
            return self._db.scour("subjects", seconds=seconds)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _of(self, subjects: Collection[str], query: str) -> list[Row]:
        places = ", ".join("?" * len(subjects))
        return self._db.read(f"{query} WHERE subject IN ({places})", *subjects) if subjects else []


def open_subjects(url: str) -> SubjectKeys:
    """The keys at `sqlite:///PATH` or `postgresql://...`. Raises LogError."""
    with _translated():
        return SubjectKeys(open_database(url, _SCHEMA, "subjects"))


def _standing(read: Callable[..., list[Row]], subject: str) -> tuple[bytes | None, float]:
    """A subject's key, and until when it is erased."""
    rows = read(
        "SELECT key, NULL FROM subjects WHERE subject = ? UNION ALL SELECT NULL, until FROM erased WHERE subject = ?",
        subject, subject,
    )  # fmt: skip
    return (
        next((bytes(key) for key, _ in rows if key is not None), None),
        next((until for _, until in rows if until is not None), -math.inf),
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RouterError as error:
        raise LogError(str(error)) from error
