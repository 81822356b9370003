"""The worker's view of the registry: fresh, never in a request's way, and kept through a failure."""

import asyncio
import time

import pytest
from gateway_fakes import REQUEST, FakeRegistry, FakeUpstream, gateway, live, settings
from postgres_service import Postgres

from gateway.snapshots import Snapshots
from router import Snapshot
from router.registry_sql import SCHEMA, SqlRegistry
from router.sql_postgres import PostgresDatabase

NEW = Snapshot(rollouts={"support": live()}, endpoints={})


async def until(condition, *, seconds: float = 2) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of a refresh
            await asyncio.sleep(0.005)


async def test_a_change_is_seen_after_the_interval_and_not_before() -> None:
    registry = FakeRegistry()
    snapshots = Snapshots(lambda: registry, interval=0.1)
    await snapshots.start()
    registry.value = NEW
    await asyncio.sleep(0.03)
    assert snapshots.current.rollouts == {}
    await until(lambda: snapshots.current is NEW)
    await snapshots.close()
    assert registry.closed


async def test_a_failing_registry_keeps_the_last_snapshot_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = FakeRegistry()
    registry.value = NEW
    snapshots = Snapshots(lambda: registry, interval=0.01)
    await snapshots.start()
    registry.failing = True
    await asyncio.sleep(0.1)
    assert snapshots.current is NEW
    assert [record.message for record in caplog.records] == ["gateway.registry_failed"]
    registry.failing = False
    registry.value = Snapshot(rollouts={}, endpoints={})
    await until(lambda: snapshots.current is registry.value)
    await snapshots.close()


async def test_a_registry_that_cannot_be_opened_yet_is_tried_again() -> None:
    registry, tries = FakeRegistry(), []

    def open_registry() -> FakeRegistry:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no such file")
        return registry

    registry.value = NEW
    snapshots = Snapshots(open_registry, interval=0.01)
    await snapshots.start()
    await until(lambda: snapshots.current is NEW)
    await snapshots.close()
    assert len(tries) == 3


async def test_a_slow_registry_delays_no_request(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.registry.slow = 0.5
        began = time.monotonic()
        refreshing = asyncio.create_task(running.snapshots.refresh())
        await asyncio.sleep(0.01)
        async with running.post(REQUEST) as got:
            assert got.status == 200
        assert time.monotonic() - began < 0.25
        await refreshing


@pytest.mark.service
async def test_a_frozen_postgresql_leaves_the_last_snapshot_in_force_and_the_loop_free(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    registry = SqlRegistry(PostgresDatabase(postgres.database(), SCHEMA, "registry", patience=1.0))
    registry.publish("v", engine="local", url="http://a")
    snapshots = Snapshots(lambda: registry, interval=0.01)
    await snapshots.start()
    with postgres.frozen():
        turns = 0
        while not caplog.records:
            await asyncio.sleep(0.005)
            turns += 1
        assert turns > 50  # the loop went on, while the registry's thread waited for seconds
        assert "no answer" in caplog.text
        assert snapshots.current.endpoints == {"v": "http://a"}
    await until(lambda: "gateway.registry_back" in caplog.text, seconds=20)
    assert snapshots.current.endpoints == {"v": "http://a"}
    await snapshots.close()
