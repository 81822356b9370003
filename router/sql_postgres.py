"""PostgreSQL, by psycopg: one connection, made anew when it was lost; no wait on it is without an end.

READ COMMITTED is enough for what stores do: a writer's statements lock the rows they touch, and a statement that
waited for a lock sees what the other has committed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from router.errors import ConfigError, RegistryUnavailable
from router.sql import Row, statements

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
GRACE_SECONDS = 2.0  # for a server's own word that it gave up
# SQLite's types, the longest words first. Text sorts by its bytes there; so it does here.
_TYPES = (
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    ("INTEGER", "BIGINT"),
    ("REAL", "DOUBLE PRECISION"),
    ("BLOB", "BYTEA"),
    ("TEXT", 'TEXT COLLATE "C"'),
)
_SCHEMA_LOCK = int.from_bytes(b"retort")  # of pg_advisory_xact_lock


class PostgresDatabase:
    """See Database. The table `retort_schema` holds the number of the last script that ran for each store.

    `patience`: seconds for connecting and for a statement, also one that waits for a lock. A server that has not
    answered after GRACE_SECONDS more is given up; a frozen one would never say so itself.
    """

    def __init__(self, url: str, schema: tuple[str, ...], name: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._parameters = _parameters(url, name, patience)
        self._place = f"{name} at {self._parameters.get('host', 'the default host')}"
        self._lock = threading.RLock()
        self._connection: _Connection | None = None
        self._closed = False
        try:
            with self.transaction() as session:
                _migrate(session, schema, name)
        except BaseException:
            self.close()
            raise

    def read(self, query: str, *arguments: object) -> list[Row]:
        """See Database."""
        with self._lock, self._translated():
            return self._repeatable(lambda connection: _Session(connection).rows(query, *arguments))

    @contextmanager
    def transaction(self) -> Iterator["_Session"]:
        """See Database."""
        with self._lock, self._translated():
            connection = self._repeatable(_begin)
            try:
                yield _Session(connection)
                if connection.execute("COMMIT").statusmessage != "COMMIT":
                    raise RegistryUnavailable(f"{self._place}: a statement failed, so nothing was committed")
            except BaseException:
                self._drop()  # which ends the transaction, and waits for nobody
                raise

    def scour(self, table: str, *, seconds: float) -> bool:
        """See Database. Rows that an older transaction may still see go with a later VACUUM, the server's own too;
        archived write-ahead logs are the operator's."""
        with self._lock, self._translated():
            self._repeatable(lambda connection: _Session(connection).execute(f"VACUUM {table}"))
        return True

    def close(self) -> None:
        """See Database."""
        with self._lock:
            self._closed = True
            self._drop()

    def _repeatable(self, use: Callable[["_Connection"], T]) -> T:
        """Do what changes nothing; once more where the connection turns out to be lost, as all are after the server
        was restarted."""
        if self._closed:
            raise RegistryUnavailable(f"{self._place}: closed")
        if self._connection is not None:
            try:
                return use(self._connection)
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
        self._connection = _Connection.connect(**self._parameters, autocommit=True)
        self._connection.patience = self._patience + GRACE_SECONDS
        return use(self._connection)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self._drop()  # its answer might still come, and be taken for another's
            raise RegistryUnavailable(f"{self._place}: {error}") from error
        except psycopg.Error as error:
            raise RegistryUnavailable(f"{self._place}: {' '.join(str(error).split())}") from error


class _Connection(psycopg.Connection[Row]):
    """Gives up on a server that says nothing: the kernel of a frozen one answers for ever, so no option of the socket
    would end the wait."""

    patience = PATIENCE_SECONDS

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        return super().wait(_within(gen, self.patience), *arguments, **options)


class _Session:
    """See Session."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def execute(self, query: str, *arguments: object) -> int:
        """See Session."""
        return self._connection.execute(_placed(query), arguments).rowcount

    def rows(self, query: str, *arguments: object) -> list[Row]:
        """See Session."""
        return self._connection.execute(_placed(query), arguments).fetchall()


def _within(gen: PQGen[T], seconds: float) -> PQGen[T]:
    """The same steps; psycopg goes on ten times a second also where nothing came. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


def _begin(connection: _Connection) -> _Connection:
    if connection.info.transaction_status == pq.TransactionStatus.INTRANS:
        raise psycopg.ProgrammingError("a transaction within a transaction")
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    return connection


def _migrate(session: _Session, schema: tuple[str, ...], name: str) -> None:
    """Run what has not run yet; of several processes that start at once, one does."""
    session.rows("SELECT pg_advisory_xact_lock(?)", _SCHEMA_LOCK)
    if session.rows("SELECT to_regclass('retort_schema') IS NULL") == [(True,)]:
        session.execute("CREATE TABLE retort_schema (store TEXT PRIMARY KEY, version BIGINT NOT NULL)")
    found = session.rows("SELECT version FROM retort_schema WHERE store = ?", name)
    done = found[0][0] if found else 0
    for script in schema[done:]:
        for statement in statements(script):
            for ours, theirs in _TYPES:
                statement = statement.replace(ours, theirs)
            session.execute(statement)
    if done < len(schema):
        session.execute(
            "INSERT INTO retort_schema VALUES (?, ?) ON CONFLICT (store) DO UPDATE SET version = excluded.version",
            name,
            len(schema),
        )


def _placed(query: str) -> str:
    """psycopg's placeholders; a store's queries hold no literal `?`."""
    return query.replace("%", "%%").replace("?", "%s")


def _parameters(url: str, name: str, patience: float) -> dict[str, Any]:
    """libpq's; what the URL says comes before what we would say."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # Without libpq's own words, which quote a part of the URL, perhaps of the password.
        raise ConfigError(
            f"{name}: PostgreSQL doesn't know an option in the URL; write ?NAME=VALUE&..., for example ?sslmode=require"
        ) from None
    ours = (
        f"-c statement_timeout={patience * 1000:.0f} "
        # A process that is frozen amid a transaction must not keep its locks.
        f"-c idle_in_transaction_session_timeout={(patience + GRACE_SECONDS) * 1000:.0f}"
    )
    return {
        "connect_timeout": max(round(patience), 1),
        "keepalives_idle": 30,
        "application_name": f"retort {name}",
        **given,
        "options": f"{ours} {given.get('options', '')}".strip(),
    }
