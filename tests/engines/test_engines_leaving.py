"""What is no longer wanted finishes what it has begun, and serves on where it is wanted again."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from engine_fakes import FakeCollector, FakeRegistry, Tiny, until, version
from test_engines_agent import TIMING, Publish, Running, alive, children, engine, settings

from collector import socket_path
from exporters.models import Store
from gateway.engines.child import Child
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.leaving import Leaving
from gateway.engines.protocol import Options
from gateway.engines.timing import Timing
from router import EventKind

pytestmark = pytest.mark.e2e

LONG = 460
QUESTION = [{"role": "user", "content": "1: a red car"}]


async def test_wanted_again_while_it_finishes_it_serves_on_with_the_process_it_has(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    config, registry = settings(tmp_path / "state", store), FakeRegistry()
    registry.set(version("v1"))
    timing = msgspec.structs.replace(TIMING, grace=0.0)
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, registry, collector, timing=timing) as running,
    ):
        await running.ready("v1")
        [worker] = children(os.getpid())
        os.kill(worker, signal.SIGSTOP)  # it takes its time
        url = registry.endpoints["v1"] + "/chat/completions"
        asked = asyncio.create_task(running.ask_at(url))
        await asyncio.sleep(0.1)
        registry.set()
        await running.ready()
        await until(lambda: _refused(running, url))
        registry.set(version("v1"))
        await running.ready("v1")
        os.kill(worker, signal.SIGCONT)
        assert (await asked)[0] == 200
        assert (await running.ask("v1"))[0] == 200
        assert children(os.getpid()) == [worker]
        await until(lambda: len(collector.of(EventKind.READY, "v1")) == 2)


async def _stuck(running: Running) -> tuple[int, "asyncio.Task[tuple[int, Any]]"]:
    """A worker that is stopped, and a request that it holds."""
    await running.ready("v1")
    [worker] = children(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    asked = asyncio.create_task(running.ask("v1"))
    await asyncio.sleep(0.1)
    return worker, asked


async def _refused(running: Running, url: str) -> bool:
    """Whether new requests of a version that finishes get 404."""
    try:
        async with asyncio.timeout(0.1):
            return (await running.ask_at(url))[0] == 404
    except TimeoutError:
        return False


async def test_an_answer_longer_than_an_engines_stop_may_take_is_cut_with_an_error(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    config, registry = settings(tmp_path / "state", store), FakeRegistry()
    registry.set(version("v1"))
    timing = msgspec.structs.replace(TIMING, grace=0.0, stop=0.5)
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, registry, collector, timing=timing) as running,
    ):
        worker, asked = await _stuck(running)
        running.stop.set()
        status, body = await asked
        assert (status, body["error"]["code"]) == (502, "worker_gone")
        await running.task
        assert not alive(worker)


async def test_a_worker_that_hangs_while_it_finishes_is_ended(tmp_path: Path, store: Store, publish: Publish) -> None:
    publish("v1")
    config, registry = settings(tmp_path / "state", store), FakeRegistry()
    registry.set(version("v1"))
    timing = msgspec.structs.replace(TIMING, hang=5.0, drain=60.0)
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, registry, collector, timing=timing) as running,
    ):
        worker, asked = await _stuck(running)
        registry.set()
        assert (await asked)[0] == 502
        await until(lambda: not alive(worker))


async def test_a_worker_that_hangs_is_seen_also_where_every_client_gives_up_before(tiny: Tiny) -> None:
    child = await Child.start(tiny.onnx, threads=1, timeout=60)
    try:
        os.kill(child.pid, signal.SIGSTOP)
        for _ in range(4):
            await _given_up(child)
            assert child.silent > 0.0
        assert child.silent > 0.4
        os.kill(child.pid, signal.SIGCONT)
        await until(lambda: child.silent == 0.0)
        await _given_up(child)
        await until(lambda: child.silent == 0.0)
    finally:
        await child.close()


async def _given_up(child: Child) -> None:
    events = child.generate(QUESTION, Options(max_tokens=LONG))
    try:
        async with asyncio.timeout(0.1):
            while True:
                await anext(events)
    except (TimeoutError, StopAsyncIteration):  # the answer may be over before that
        await events.aclose()


async def test_an_answer_that_nobody_reads_is_not_owed(tiny: Tiny) -> None:
    """The worker is done; that the client takes its time is not the worker's fault."""
    child = await Child.start(tiny.onnx, threads=1, timeout=60)
    try:
        events = child.generate(QUESTION, Options(max_tokens=8))
        await anext(events)
        await until(lambda: child.silent == 0.0)
        await events.aclose()
    finally:
        await child.close()


async def test_what_still_finishes_counts_where_memory_is_bounded(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    publish("v2")
    config, registry = settings(tmp_path / "state", store, memory_gb=0.35), FakeRegistry()
    registry.set(version("v1"))
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, registry, collector) as running,
    ):
        worker, asked = await _stuck(running)
        registry.set(version("v2"))
        await until(lambda: bool(collector.of(EventKind.UNREADY, "v2")))
        assert "memory_gb: 0.35 (again in" in collector.of(EventKind.UNREADY, "v2")[0].data["reason"]
        os.kill(worker, signal.SIGCONT)
        assert (await asked)[0] == 200
        await running.ready("v2")


async def test_clients_that_leave_by_the_hundred_leave_no_place_taken_and_are_no_error(
    tmp_path: Path, store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("v1")
    config, registry = settings(tmp_path / "state", store, queue=200), FakeRegistry()
    registry.set(version("v1"))
    async with FakeCollector(socket_path(config.state)) as collector, engine(config, registry, collector) as running:
        await running.ready("v1")
        [worker] = children(os.getpid())
        url = registry.endpoints["v1"] + "/chat/completions"
        body = {"messages": QUESTION, "max_tokens": LONG, "stream": True, "temperature": 0}

        async def leaves(seconds: float) -> None:
            connector = aiohttp.TCPConnector(force_close=True)
            async with aiohttp.ClientSession(connector=connector) as client:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds), client.post(url, json=body) as response:
                        await response.content.readline()

        await asyncio.gather(*(leaves(3.0 + n % 2 * 60) for n in range(200)))  # half of them before any word
        inside = [e for e in running.emitted if e["name"] == "engine.inside"]
        assert max(e["waiting"] + e["decoding"] for e in inside) > 20
        await until(lambda: [e for e in running.emitted if e["name"] == "engine.inside"][-1]["waiting"] == 0)
        assert (await running.ask("v1"))[0] == 200  # a place is free, and the worker goes on
        last = [e for e in running.emitted if e["name"] == "engine.inside"][-1]
        assert (last["waiting"], last["decoding"]) == (0, 0)
        assert {e["outcome"] for e in running.emitted if e["name"] == "engine.request"} <= {"cancelled", "ok"}
        assert children(os.getpid()) == [worker]
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_engine_that_stops_closes_all_that_drain_also_one_that_ends_meanwhile() -> None:
    closed: list[str] = []
    places = contextlib.ExitStack()

    class Slow:
        def __init__(self, name: str) -> None:
            self.name, self.gone = name, asyncio.Event()

        async def close(self) -> None:
            places.close()  # the others' last requests end
            await asyncio.sleep(0.01)
            closed.append(self.name)
            if self.name == "a":
                raise RuntimeError("it would not end well")

    async def withdraw(hosted: Hosted, reason: str) -> None:
        hosts.remove(hosted)

    hosts = Hosts()
    leaving = Leaving(hosts, Timing(drain=60.0), withdraw=withdraw, ended=lambda _: None)
    for name in "abc":
        hosted = Hosted(version(name), Slow(name), queue=1)  # type: ignore[arg-type]
        places.enter_context(hosted.admit())
        leaving.begin(hosted, reason="no longer wanted")
    await leaving.finish(0.05)
    assert sorted(closed) == ["a", "b", "c"]
    assert not list(leaving)
