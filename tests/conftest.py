"""No test reaches beyond this machine; the databases that several rooms are tested on."""

import gc
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kafka_broker import Broker
    from postgres_service import Postgres

ROOT = Path(__file__).parents[1]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

_connect = socket.socket.connect


def _local_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = address[0]
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise RuntimeError(f"a test tried to reach {host}")
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _stay_on_this_machine() -> Iterator[None]:
    socket.socket.connect = _local_only  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    """A real server, started at the first use. Whoever stops it starts it again."""
    from postgres_service import running

    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database, in SQLite and in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/registry.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def swept() -> Iterator[None]:
    """For tests in which connections fail: kafka-python leaves the closing of such sockets to the garbage collector,
    and Python's warning of it is to come while the test's own filter of warnings holds."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Broker"]:
    """A Kafka broker, running. A test that ends it starts it again."""
    if not (ROOT / ".services/kafka").is_dir():
        if os.environ.get("CI"):
            pytest.fail("no Kafka: scripts/services did not run")
        pytest.skip("scripts/services fetches Kafka")
    from kafka_broker import Broker

    made = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        made.start()
        made.wait()
        yield made
    finally:
        made.stop()
