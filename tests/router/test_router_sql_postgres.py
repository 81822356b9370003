"""A PostgreSQL that is restarted, hangs or can't be had: told within bounded time, and no write is done twice."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from postgres_service import PASSWORD, Postgres

from router import ConfigError, Database, Registry, RegistryUnavailable, open_database, open_registry
from router.registry_sql import SCHEMA, SqlRegistry
from router.sql_postgres import PostgresDatabase

pytestmark = pytest.mark.service

COUNT = "CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"
ADD = "INSERT INTO counts (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = counts.value + 1"


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with closing(open_registry(url)) as opened:
        yield opened


@pytest.fixture
def counts(url: str) -> Iterator[Database]:
    with closing(open_database(url, (COUNT,), "counts")) as opened:
        yield opened


def cut(postgres: Postgres, database: Database) -> None:
    """End the database's connection as the server's restart would."""
    ((pid,),) = database.read("SELECT pg_backend_pid()")
    postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_reads_and_writes_go_on_after_the_server_was_restarted(postgres: Postgres, registry: Registry) -> None:
    registry.publish("v", engine="local", url="http://a")
    postgres.stop()
    postgres.start()
    assert registry.snapshot().endpoints == {"v": "http://a"}
    postgres.stop()
    postgres.start()
    registry.publish("v", engine="local", url="http://b")
    assert registry.snapshot().endpoints == {"v": "http://b"}


def test_while_the_server_is_down_everything_says_so(postgres: Postgres, url: str, registry: Registry) -> None:
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(RegistryUnavailable, match=f"port {postgres.port}"):
                registry.snapshot()
            with pytest.raises(RegistryUnavailable, match=f"port {postgres.port}"):
                registry.lease("p", holder="a", seconds=1)
        with pytest.raises(RegistryUnavailable, match=f"port {postgres.port}"):
            open_registry(url)
    finally:
        postgres.start()
    assert registry.lease("p", holder="a", seconds=1)


def test_a_transaction_whose_connection_is_lost_is_neither_committed_nor_done_again(
    postgres: Postgres, counts: Database
) -> None:
    def add(*, at_commit: bool) -> None:
        with counts.transaction() as session:
            session.execute(ADD, "a")
            tries.append(1)
            cut(postgres, counts)
            if not at_commit:
                session.execute(ADD, "b")

    for at_commit in (True, False):
        tries: list[int] = []
        with pytest.raises(RegistryUnavailable, match="counts"):
            add(at_commit=at_commit)
        assert len(tries) == 1
        assert counts.read("SELECT * FROM counts") == []
    with counts.transaction() as session:
        session.execute(ADD, "a")
    assert counts.read("SELECT * FROM counts") == [("a", 1)]


def test_a_statement_that_failed_unnoticed_is_told_by_the_commit(counts: Database) -> None:
    def add() -> None:
        with counts.transaction() as session:
            session.execute(ADD, "a")
            with pytest.raises(psycopg.Error):
                session.execute("nonsense")

    with pytest.raises(RegistryUnavailable, match="nothing was committed"):
        add()
    assert counts.read("SELECT * FROM counts") == []


def test_a_frozen_server_is_given_up_and_found_again(postgres: Postgres, url: str) -> None:
    with closing(SqlRegistry(PostgresDatabase(url, SCHEMA, "registry", patience=1.0))) as registry:
        registry.publish("v", engine="local", url="http://a")
        with postgres.frozen():
            with pytest.raises(RegistryUnavailable, match="no answer within 3 s"):  # of a statement
                registry.snapshot()
            with pytest.raises(
                RegistryUnavailable, match=r"registry at 127\.0\.0\.1: .*timeout expired"
            ):  # of a new connection
                registry.withdraw("v")
        assert registry.snapshot().endpoints == {"v": "http://a"}
        with postgres.frozen(), pytest.raises(RegistryUnavailable, match="no answer within 3 s"):
            registry.withdraw("v")
        registry.publish("w", engine="local", url="http://b")
        assert "w" in registry.snapshot().endpoints


def test_a_lock_that_is_never_given_back_is_not_waited_for(url: str, counts: Database) -> None:
    with counts.transaction() as session:
        session.execute(ADD, "a")
    with (
        closing(PostgresDatabase(url, (COUNT,), "counts", patience=0.3)) as other,
        counts.transaction() as session,
    ):
        session.execute(ADD, "a")
        with pytest.raises(RegistryUnavailable, match="statement timeout"), other.transaction() as waiting:
            waiting.execute(ADD, "a")
    assert counts.read("SELECT value FROM counts") == [(2,)]


def test_a_process_that_is_frozen_amid_a_transaction_loses_it_and_its_locks(url: str, counts: Database) -> None:
    def frozen(database: Database) -> None:
        with database.transaction() as session:
            session.execute(ADD, "a")
            with counts.transaction() as other:  # waits for the lock, until the server takes it away
                other.execute(ADD, "a")

    with (
        closing(PostgresDatabase(url, (COUNT,), "counts", patience=0.1)) as database,
        pytest.raises(RegistryUnavailable, match="counts"),
    ):
        frozen(database)
    assert counts.read("SELECT value FROM counts") == [(1,)]


def test_two_stores_share_a_database_each_with_a_schema_of_its_own(url: str, counts: Database) -> None:
    names = "CREATE TABLE names (name TEXT PRIMARY KEY)"
    more = "CREATE TABLE more (name TEXT PRIMARY KEY)"
    with closing(open_database(url, (names, more), "names")) as other:
        assert other.read("SELECT store, version FROM retort_schema ORDER BY store") == [("counts", 1), ("names", 2)]
    with closing(open_database(url, (COUNT, more.replace("more", "others")), "counts")) as again:
        assert again.read("SELECT store, version FROM retort_schema ORDER BY store") == [("counts", 2), ("names", 2)]


def test_what_the_url_says_comes_before_the_defaults(url: str) -> None:
    with closing(open_database(f"{url}?options=-c%20statement_timeout%3D777&application_name=mine", (), "x")) as opened:
        assert opened.read("SHOW statement_timeout") == [("777ms",)]
        assert opened.read("SHOW idle_in_transaction_session_timeout") == [("7s",)]
        assert opened.read("SHOW application_name") == [("mine",)]


def test_a_wrong_password_or_host_is_told_and_the_password_is_not(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = postgres.url()
    wrong = {
        postgres.url(password="s3cret-but-wrong"): 'password authentication failed for user "retort"',
        postgres.url("nowhere"): 'database "nowhere" does not exist',
        good.replace("127.0.0.1", "127.0.0.1.invalid"): "127.0.0.1.invalid",
        good.replace(str(postgres.port), "1"): "port 1 failed",
        f"{good}?sslmode=require": "server does not support SSL",
    }
    for url, says in wrong.items():
        with pytest.raises(RegistryUnavailable, match=says) as told:
            open_registry(url)
        shown = "".join(traceback.format_exception(told.value)) + caplog.text
        assert "s3cret" not in shown
        assert PASSWORD not in shown
        assert "p%40ss" not in shown


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3cret@h/db?passwrd=s3cret", "postgresql://u@h/db?s3cret", "postgresql://u:s3cret%00@h/db"]
)
def test_a_url_that_postgresql_can_not_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"an option in the URL; write \?NAME=VALUE") as told:
        open_registry(url)
    assert "s3cret" not in "".join(traceback.format_exception(told.value))
