"""A database as the stores see it: one SELECT, or one transaction. SQLite and PostgreSQL are its two dialects.

What a store writes is SQL that both understand (`ON CONFLICT ...`), with `?` for an argument. Its schema is a tuple of
scripts, numbered from 1 and only ever appended to, in SQLite's types (TEXT, INTEGER, REAL, BLOB); `open_database` runs
those that the database hasn't seen.
"""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from router.errors import ConfigError

Row = tuple[Any, ...]

SQLITE, POSTGRES = "sqlite:///", "postgresql://"

# Whatever libpq would read otherwise than a person does is refused: a password with a bare / or @ would be taken for a
# port or a host, and be told in an error.
_HOST = r"(?:[\w.%-]*|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
_POSTGRES_URL = re.compile(
    rf"(?!.*%(?![0-9A-Fa-f]{{2}})){POSTGRES}(?:[^@/?#:]+(?::[^@/?#]*)?@)?{_HOST}(?:,{_HOST})*(?:/[^@/?#]*)?(?:\?[^@#]*)?"
)


class Session(Protocol):
    """The statements of one transaction. One that fails ends it; outside, that is a RegistryUnavailable."""

    def execute(self, query: str, *arguments: object) -> int:
        """How many rows it inserted, updated or deleted."""

    def rows(self, query: str, *arguments: object) -> list[Row]:
        """What a SELECT finds."""


class Database(Protocol):
    """One store's database, safe to use from several threads; open one for each process. Everything raises
    RegistryUnavailable where the database can't be used, within bounded time; the next use tries anew."""

    def read(self, query: str, *arguments: object) -> list[Row]:
        """What one SELECT finds, all of it as of one moment."""

    def transaction(self) -> AbstractContextManager[Session]:
        """All of it, or nothing. Never nested. An error at the end leaves open whether it was committed: a store's
        writes are such that the caller may look, or write again."""

    def scour(self, table: str, *, seconds: float) -> bool:
        """Leave nothing in the database's files of what was deleted from a table; False where a reader kept it from
        that for so long. Nothing is written meanwhile."""

    def close(self) -> None:
        """Close the connection; the database is not used any more."""


def why_bad_url(url: str) -> str | None:
    """What would be right where `url` is no database's; it isn't quoted, because it may hold a password."""
    if url.startswith(SQLITE) or _POSTGRES_URL.fullmatch(url):
        return None
    return (
        "write sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what isn't a letter, a digit or "
        "one of -._~ in USER and PASSWORD percent-encoded (@ is %40, / is %2F)"
    )


def open_database(url: str, schema: tuple[str, ...], name: str) -> Database:
    """The database at `url`: `sqlite:///relative/path`, `sqlite:////absolute/path` (a file of this store's own, made
    where it doesn't exist) or `postgresql://...` (which several stores may share). `name`: the store's, in errors and
    in PostgreSQL's record of schemas.

    Raises ConfigError for a URL of another kind, or where psycopg is needed and not installed; RegistryUnavailable.
    """
    if wrong := why_bad_url(url):
        raise ConfigError(f"{name}: {wrong}")
    # A dialect is loaded where it is used: not everybody has psycopg.
    if url.startswith(SQLITE):
        from router.sql_sqlite import SqliteDatabase  # noqa: PLC0415

        return SqliteDatabase(Path(url.removeprefix(SQLITE)), schema, name)
    try:
        from router.sql_postgres import PostgresDatabase  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"{name}: postgresql:// needs psycopg; pip install 'retort-gateway[postgres]'") from error
    return PostgresDatabase(url, schema, name)


def statements(script: str) -> list[str]:
    """A schema script's statements."""
    return [statement for statement in script.split(";") if statement.strip()]
