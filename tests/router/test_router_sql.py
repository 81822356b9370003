"""A store's database: all of a transaction or nothing, and a schema that grows; in SQLite and in PostgreSQL alike."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from racing import race

from router import (
    ConfigError,
    Database,
    RegistryUnavailable,
    Rollout,
    Stage,
    TaskKind,
    Version,
    open_database,
    open_registry,
)
from router.registry_sql import encode

FIRST = "CREATE TABLE keys (name TEXT PRIMARY KEY, value BLOB NOT NULL, made REAL NOT NULL, used INTEGER NOT NULL)"
SECOND = """
    CREATE TABLE uses (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
    INSERT INTO uses (name) VALUES ('first');
"""
INSERT = "INSERT INTO keys (name, value, made, used) VALUES (?, ?, ?, ?)"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(open_database(database_url, (FIRST,), "keys")) as opened:
        yield opened


def test_what_is_written_is_read_back_as_it_was(database: Database) -> None:
    row = ("100% sure", b"\x00\xff", 1753500000.1234567, 2**53 + 1)
    with database.transaction() as session:
        assert session.execute(INSERT, *row) == 1
        assert session.rows("SELECT name FROM keys WHERE used > ?", 5) == [("100% sure",)]
    assert database.read("SELECT name, value, made, used FROM keys WHERE name LIKE '1%' AND made = ?", row[2]) == [row]


def test_rows_that_were_changed_are_counted(database: Database) -> None:
    upsert = f"{INSERT} ON CONFLICT (name) DO UPDATE SET used = excluded.used WHERE keys.used < excluded.used"
    with database.transaction() as session:
        assert [session.execute(upsert, "k", b"", 0.0, used) for used in (1, 2, 2)] == [1, 1, 0]
        assert session.execute("DELETE FROM keys WHERE name = ?", "another") == 0


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    def fails(statement: str) -> None:
        with database.transaction() as session:
            session.execute(INSERT, "k", b"", 0.0, 0)
            session.execute(statement)
            raise KeyError

    with pytest.raises(KeyError):
        fails("DELETE FROM keys WHERE name = 'another'")
    with pytest.raises(RegistryUnavailable, match=r"keys.*nonsense"):
        fails("nonsense")
    assert database.read("SELECT * FROM keys") == []
    with database.transaction() as session:
        session.execute(INSERT, "k", b"", 0.0, 0)
    assert len(database.read("SELECT * FROM keys")) == 1


def test_a_transaction_is_never_nested(database: Database) -> None:
    def nest() -> None:
        with database.transaction() as session:
            session.execute(INSERT, "k", b"", 0.0, 0)
            with database.transaction():
                pass

    with pytest.raises(RegistryUnavailable, match="a transaction within a transaction"):
        nest()
    assert database.read("SELECT * FROM keys") == []


def test_a_schema_grows_by_the_scripts_that_have_not_run(database_url: str, database: Database) -> None:
    with database.transaction() as session:
        session.execute(INSERT, "k", b"kept", 0.0, 0)
    for _ in range(2):
        with closing(open_database(database_url, (FIRST, SECOND), "keys")) as again:
            assert again.read("SELECT value FROM keys") == [(b"kept",)]
            assert again.read("SELECT number, name FROM uses") == [(1, "first")]


def test_a_script_that_fails_leaves_the_schema_as_it_was(database_url: str, database: Database) -> None:
    with pytest.raises(RegistryUnavailable, match="nonsense"):
        open_database(database_url, (FIRST, f"{SECOND} nonsense"), "keys")
    with closing(open_database(database_url, (FIRST, SECOND), "keys")) as again:
        assert again.read("SELECT name FROM uses") == [("first",)]


STORES = 15


def _open_each(url: str, number: int, barrier: Barrier) -> int:
    for n in range(STORES):
        place = f"{url}.{n}" if url.startswith("sqlite") else url
        barrier.wait()
        open_database(place, (f"CREATE TABLE store{n} (name TEXT PRIMARY KEY)",), f"store {n}").close()
    return STORES


def test_of_processes_that_start_at_once_one_makes_the_tables(database_url: str) -> None:
    assert race(_open_each, database_url, racers=4) == [STORES] * 4


def test_an_sqlite_registry_of_the_first_release_opens_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    version = Version(
        id="v", route="r", kind=TaskKind.CHAT, base="b", engine="local", artefact="a", created_at=1.0, lineage={"a": 1}
    )
    rollout = Rollout(route="r", revision=3, live="v")
    db = sqlite3.connect(path)
    db.executescript(
        """
        CREATE TABLE versions (id TEXT PRIMARY KEY, route TEXT NOT NULL, created_at REAL NOT NULL, stage TEXT NOT NULL,
                               stage_order INTEGER NOT NULL DEFAULT 0, data BLOB NOT NULL);
        CREATE TABLE rollouts (route TEXT PRIMARY KEY, data BLOB NOT NULL, state BLOB NOT NULL, next INTEGER NOT NULL,
                               revision INTEGER NOT NULL, status BLOB NOT NULL);
        CREATE TABLE transitions (number INTEGER PRIMARY KEY AUTOINCREMENT, route TEXT NOT NULL, data BLOB NOT NULL);
        CREATE TABLE endpoints (version TEXT PRIMARY KEY, engine TEXT NOT NULL, url TEXT NOT NULL);
        CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL);
        PRAGMA user_version = 1;
        """
    )
    db.execute("INSERT INTO versions VALUES ('v', 'r', 1.0, 'live', 7, ?)", (encode(version),))
    db.execute("INSERT INTO rollouts VALUES ('r', ?, ?, 8, 3, ?)", (encode(rollout), b"state", b"{}"))
    db.commit()
    db.close()
    with closing(open_registry(f"sqlite:///{path}")) as registry:
        assert registry.version("v").stage is Stage.LIVE
        assert registry.checkpoint("r") == (rollout, b"state", 8)
        assert registry.kept_before("r", 9) == (None, 0)


def test_a_place_that_is_no_sqlite_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but long enough to be read as one by mistake" * 20)
    for place in ("file", "file/below", "."):
        with pytest.raises(RegistryUnavailable, match=f"registry {tmp_path}"):
            open_registry(f"sqlite:///{tmp_path}/{place}")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x",
        "postgres://user:secret@host/db",
        "postgresql://user:se@cret@host/db",
        "postgresql://user:se/cret@host/db",
        "postgresql://user:12/cret@host/db",
        "postgresql://user:12?cret@host/db",
        "postgresql://user:se#cret@host/db",
        "postgresql://user:se%cret@host/db",
        "postgresql://host:cret/db",
        "user:secret@host/db",
    ],
)
@pytest.mark.parametrize("opens", [open_registry, lambda url: open_database(url, (), "registry")])
def test_another_url_is_refused_without_a_word_of_its_password(opens: Callable[[str], object], url: str) -> None:
    with pytest.raises(ConfigError, match="write sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT") as refused:
        opens(url)
    assert "cret" not in str(refused.value)


def test_without_psycopg_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from router import ConfigError, open_registry\n"
        "try: open_registry('postgresql://host/db')\n"
        "except ConfigError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'retort-gateway[postgres]'" in said.stdout
