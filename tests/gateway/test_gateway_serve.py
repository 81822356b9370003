"""A worker's life: it listens or says why not, stays alive without its upstreams, and drains before it ends."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from gateway_fakes import REQUEST, STREAM, FakeUpstream, collector, completion, gateway, plain, settings, stream

from collector import Exchange
from collector.scrub_pool import TIMEOUT
from gateway.errors import CannotListen, PortInUse
from gateway.serve import DRAIN_SECONDS, listen, run
from router import Config, Events


def in_folder(config: Config, folder: Path) -> Config:
    return config.model_copy(update={"state": str(folder), "registry": f"sqlite:///{folder}/registry.db"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def worker(config: Config, *, port: int, reuse_port: bool = False) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    options = {"host": "127.0.0.1", "port": port, "reuse_port": reuse_port}
    running = asyncio.create_task(run(config, events=Events(), stop=stop, **options))
    async with aiohttp.ClientSession() as client, asyncio.timeout(10):
        while not running.done():
            try:
                async with client.get(f"http://127.0.0.1:{port}/readyz"):
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await running


async def test_stopping_finishes_what_is_in_flight_and_loses_no_exchange(teacher: FakeUpstream, tmp_path: Path) -> None:
    teacher.will(plain("slow", delay=0.4), stream(STREAM, pause=0.1))
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession() as client, collector(str(tmp_path)) as received:

        async def ask(**fields: bool) -> bytes:
            async with client.post(url, json={**REQUEST, **fields}) as got:
                assert got.status == 200
                return await got.read()

        async with worker(in_folder(settings(teacher.url), tmp_path), port=port) as stop:
            first = asyncio.create_task(ask())
            await teacher.arrived.wait()
            teacher.arrived.clear()
            second = asyncio.create_task(ask(stream=True))
            await teacher.arrived.wait()
            stop.set()
            assert await first == completion("slow")
            assert await second == b"".join(STREAM)
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask()
    assert sorted(header.stream for header in received if isinstance(header, Exchange)) == [False, True]


def test_the_last_frames_outwait_a_text_that_takes_its_full_time_to_scrub() -> None:
    assert DRAIN_SECONDS > TIMEOUT


async def test_a_port_in_use_is_one_clear_message(teacher: FakeUpstream, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = in_folder(settings(teacher.url), tmp_path)
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port} is already in use.*--port") as caught:
            await run(config, events=Events(), stop=asyncio.Event(), host="127.0.0.1", port=port)
    assert caught.value.retryable is False


def test_an_address_of_another_machine_is_one_clear_message() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:80 can't be listened on"):
        listen("192.0.2.1", 80)


async def test_workers_share_a_port_only_when_told_to(teacher: FakeUpstream, tmp_path: Path) -> None:
    config, port = in_folder(settings(teacher.url), tmp_path), free_port()
    async with worker(config, port=port, reuse_port=True), worker(config, port=port, reuse_port=True):
        with pytest.raises(PortInUse):
            listen("127.0.0.1", port)


async def test_health_and_readiness_do_not_ask_the_upstream_and_draining_is_not_ready() -> None:
    async with gateway(settings("http://127.0.0.1:9/v1")) as running:
        root = running.url.removesuffix("/v1")
        for draining, ready in ((False, 200), (True, 503)):
            running.app.draining = draining
            async with running.client.get(f"{root}/healthz") as got:
                assert got.status == 200
            async with running.client.get(f"{root}/readyz") as got:
                assert got.status == ready


async def test_metrics_are_served_as_text() -> None:
    async with gateway(settings("http://127.0.0.1:9/v1")) as running:
        got = await running.client.get(f"{running.url.removesuffix('/v1')}/metrics")
        assert got.status == 200
        assert got.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("module", ["gateway", "gateway.app", "gateway.serve", "exporters", "exporters.prometheus"])
def test_the_data_plane_loads_no_model_library_and_no_broker_client(module: str) -> None:
    heavy = ["torch", "transformers", "spacy", "presidio_analyzer", "kafka", "onnxruntime", "onnxruntime_genai"]
    code = f"import {module}, sys, json; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
