"""The agent as a whole: the registry's wishes become loaded versions, and users notice nothing."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import tiny_encoder
from engine_fakes import FakeCollector, FakeRegistry, Tiny, until, version

from collector import socket_path
from exporters.models import ENCODER, Manifest, Store
from exporters.models.to_encoder import export_bi_encoder
from gateway.engines.agent import Seams, run
from gateway.engines.errors import CannotListen
from gateway.engines.timing import Timing
from router import Config, EventKind, Events, Registry, TaskKind, open_registry, parse

pytestmark = pytest.mark.e2e

TIMING = Timing(tick=0.05, grace=0.4, drain=10.0, first_backoff=0.3, longest_backoff=2.0)
Publish = Callable[..., Path]


class Running(msgspec.Struct):
    registry: FakeRegistry
    collector: FakeCollector
    client: aiohttp.ClientSession
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    emitted: list[dict[str, Any]]

    async def ask(self, version_id: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        url = self.registry.endpoints[version_id] + "/chat/completions"
        return await self.ask_at(url, **fields)

    async def ask_at(self, url: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {"messages": [{"role": "user", "content": "1: a red car"}], "temperature": 0, "max_tokens": 8, **fields}
        async with self.client.post(url, json=body) as response:
            return response.status, await response.json()

    async def ready(self, *version_ids: str) -> None:
        await until(lambda: set(self.registry.endpoints) == set(version_ids))


def settings(state: Path, store: Store, *, selective: bool = False, **engine: Any) -> Config:
    more = ", selective: {}" if selective else ""
    text = f"""
state: {state}
artefacts: {store.path("x").parent}
upstreams: {{up: {{base_url: "http://127.0.0.1:9/v1", distillation_allowed: true}}}}
engines: {{local: {msgspec.json.encode({"threads": 1, **engine}).decode()}}}
routes: {{support: {{teachers: [up/big], student: {{engine: local}}{more}}}}}
"""
    return parse(text, {})


@asynccontextmanager
async def engine(
    config: Config, registry: FakeRegistry, collector: FakeCollector, *, timing: Timing = TIMING
) -> AsyncIterator[Running]:
    events, stop, emitted = Events(), asyncio.Event(), []
    events.subscribe(lambda name, fields: emitted.append({"name": name, **fields}))
    seams = Seams(open_registry=lambda url: registry, timing=timing)  # type: ignore[arg-type, return-value]
    task = asyncio.create_task(run(config, name="local", events=events, stop=stop, seams=seams))
    async with aiohttp.ClientSession() as client:
        try:
            yield Running(registry, collector, client, stop, task, emitted)
        finally:
            stop.set()
            await task


@pytest.fixture
async def running(tmp_path: Path, store: Store) -> AsyncIterator[Running]:
    config = settings(tmp_path / "state", store)
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, FakeRegistry(), collector) as started,
    ):
        yield started


async def test_a_version_that_calls_tools_in_an_unknown_form_is_not_served(running: Running, publish: Publish) -> None:
    publish("v1")
    running.registry.set(msgspec.structs.replace(version("v1"), tools="tags-0"))
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))
    unready = running.collector.of(EventKind.UNREADY, "v1")[0]
    assert not unready.data["hopeless"], "an engine of another version may serve it"
    assert "'tags-0'; this engine knows 'tags-1'" in unready.data["reason"]
    assert not running.registry.endpoints


async def test_an_encoder_is_verified_loaded_probed_and_published_as_any_version(
    running: Running, store: Store, tmp_path: Path
) -> None:
    staging = store.staging("e1")
    exported = export_bi_encoder(tiny_encoder.plain(tmp_path / "bert"), staging)
    manifest = Manifest(
        id="e1", route="support", kind="embedding", runtime=ENCODER, base="tiny", base_revision="0", created_at=1.0,
        quantization="int8", files={}, golden=exported.golden,
    )  # fmt: skip
    store.add(staging, manifest)
    other = store.staging("e2")
    for file in (f for f in store.path("e1").iterdir() if f.name != "manifest.json"):
        shutil.copyfile(file, other / file.name)
    wrong = [{**exported.golden[0], "vector": exported.golden[0]["vector"][::-1]}]
    store.add(other, msgspec.structs.replace(manifest, id="e2", golden=wrong))
    running.registry.set(*(msgspec.structs.replace(version(n), kind=TaskKind.EMBEDDING) for n in ("e1", "e2")))
    await running.ready("e1")
    async with running.client.post(running.registry.endpoints["e1"] + "/embeddings", json={"input": "a car"}) as got:
        assert (got.status, len((await got.json())["data"][0]["embedding"])) == (200, 32)
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "e2")))
    [unready] = running.collector.of(EventKind.UNREADY, "e2")
    assert unready.data["hopeless"]
    assert "golden entry 0 of e2 comes out too different" in unready.data["reason"]


async def test_a_version_that_finds_no_room_waits_and_the_others_go_on(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    publish("v2")
    config = settings(tmp_path / "state", store, memory_gb=0.35)
    async with FakeCollector(socket_path(config.state)) as collector, engine(config, FakeRegistry(), collector) as made:
        made.registry.set(version("v1"))
        await made.ready("v1")
        made.registry.set(version("v1"), version("v2"))
        await until(lambda: len(collector.of(EventKind.UNREADY, "v2")) > 1)
        unready = collector.of(EventKind.UNREADY, "v2")[-1]
        assert "GB and 0." in unready.data["reason"]
        assert "of memory_gb: 0.35 (again in" in unready.data["reason"]
        assert not unready.data["hopeless"]
        assert (await made.ask("v1"))[0] == 200
        made.registry.set(version("v2"))
        await made.ready("v2")


async def test_where_the_machine_has_no_memory_for_a_second_version_the_first_goes_on_and_it_is_tried_again(
    running: Running, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("v1")
    publish("v2")
    running.registry.set(version("v1"))
    await running.ready("v1")
    [worker] = children(os.getpid())
    limited = tmp_path / "limited"  # kB: less than the libraries take
    limited.write_text(f'#!/bin/sh\nulimit -v 140000\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(limited))
        running.registry.set(version("v1"), version("v2"))
        await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v2")))
        unready = running.collector.of(EventKind.UNREADY, "v2")[0]
        assert "(again in" in unready.data["reason"]
        assert not unready.data["hopeless"]
        assert (await running.ask("v1"))[0] == 200
    await running.ready("v1", "v2")
    assert (await running.ask("v2"))[0] == 200
    assert worker in children(os.getpid())


async def test_a_wanted_version_is_verified_loaded_probed_and_published(running: Running, publish: Publish) -> None:
    publish("v1")
    running.registry.set(version("v1"))
    await running.ready("v1")
    status, body = await running.ask("v1")
    assert (status, body["model"]) == (200, "v1")
    await until(lambda: bool(running.collector.of(EventKind.READY, "v1")))
    [ready] = running.collector.of(EventKind.READY, "v1")
    assert ready.route == "support"
    assert ready.data == {"engine": "local", "url": running.registry.endpoints["v1"]}
    assert [e["version"] for e in running.emitted if e["name"] == "engine.loaded"] == ["v1"]


async def test_two_versions_serve_at_once_and_a_third_is_beyond_max_loaded(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    for name in ("v1", "v2", "v3"):
        publish(name)
    config = settings(tmp_path / "state", store, max_loaded=2)
    registry = FakeRegistry()
    registry.set(version("v1"), version("v2"), version("v3"))
    async with FakeCollector(socket_path(config.state)) as collector, engine(config, registry, collector) as running:
        await running.ready("v1", "v2")
        assert [(await running.ask(v))[1]["model"] for v in ("v1", "v2")] == ["v1", "v2"]
        await asyncio.sleep(0.3)
        assert set(registry.endpoints) == {"v1", "v2"}


async def test_swapping_versions_under_load_fails_no_request(running: Running, publish: Publish) -> None:
    """Clients hold an endpoint for up to 0.25 s after it was withdrawn, as gateways do that read the registry now
    and then; streams and plain requests go on all the while."""
    for name in ("v1", "v2", "v3"):
        publish(name)
    running.registry.set(version("v1"))
    await running.ready("v1")
    answers: list[tuple[int, str]] = []
    over = asyncio.Event()

    async def client(number: int) -> None:
        endpoints: dict[str, str] = {}
        read = -1.0
        while not over.is_set():
            if time.monotonic() - read > 0.25:
                endpoints, read = dict(running.registry.endpoints), time.monotonic()
            name, url = sorted(endpoints.items())[-1]
            body = {"messages": [{"role": "user", "content": f"{number}: a red car"}], "max_tokens": 40}
            stream = number % 2 == 0
            async with running.client.post(f"{url}/chat/completions", json={**body, "stream": stream}) as response:
                text = await response.text()
                whole = text.endswith("data: [DONE]\n\n") and '"error"' not in text if stream else True
                answers.append((response.status if whole else 0, name))

    clients = [asyncio.create_task(client(n)) for n in range(4)]
    for old, new in (("v1", "v2"), ("v2", "v3")):
        running.registry.set(version(old), version(new))
        await running.ready(old, new)
        running.registry.set(version(new))
        await running.ready(new)
        seen = len(answers)
        await until(lambda seen=seen, new=new: new in {n for _, n in answers[seen:]})
        await asyncio.sleep(0.5)
    over.set()
    await asyncio.gather(*clients)
    assert {status for status, _ in answers} == {200}
    assert {name for _, name in answers} == {"v1", "v2", "v3"}
    assert len(answers) > 50
    order = [h for h in running.registry.history if h[1] in ("v1", "v2")]
    assert order == [("publish", "v1"), ("publish", "v2"), ("withdraw", "v1"), ("withdraw", "v2")]
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))


async def test_a_version_no_longer_wanted_gives_its_memory_back(running: Running, publish: Publish) -> None:
    publish("v1")
    running.registry.set(version("v1"))
    await running.ready("v1")
    [worker] = children(os.getpid())
    running.registry.set()
    await running.ready()
    await until(lambda: not alive(worker))


async def test_a_killed_worker_is_withdrawn_at_once_and_comes_back_after_its_probes(
    running: Running, publish: Publish
) -> None:
    publish("v1")
    publish("v2")
    running.registry.set(version("v1"), version("v2"))
    await running.ready("v1", "v2")
    first = set(children(os.getpid()))
    killed = next(p for p in first if b"/v1\0" in cmdline(p))
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    await running.ready("v2")
    assert time.monotonic() - began < 1.0
    assert (await running.ask("v2"))[0] == 200
    await running.ready("v1", "v2")
    assert (await running.ask("v1"))[0] == 200
    await until(lambda: len(running.collector.of(EventKind.READY, "v1")) == 2)
    kinds = [e.kind for e in running.collector.events if e.version == "v1"]
    assert kinds == [EventKind.READY, EventKind.UNREADY, EventKind.READY]
    assert "signal 9" in running.collector.of(EventKind.UNREADY, "v1")[0].data["reason"]
    assert len({e.id for e in running.collector.events}) == len(running.collector.events)


async def test_a_worker_that_hangs_is_replaced(tmp_path: Path, store: Store, publish: Publish) -> None:
    publish("v1")
    config = settings(tmp_path / "state", store)
    registry = FakeRegistry()
    registry.set(version("v1"))
    timing = msgspec.structs.replace(TIMING, hang=5.0)
    async with (
        FakeCollector(socket_path(config.state)) as collector,
        engine(config, registry, collector, timing=timing) as running,
    ):
        await running.ready("v1")
        [worker] = children(os.getpid())
        os.kill(worker, signal.SIGSTOP)
        assert (await running.ask("v1"))[0] == 502
        await until(lambda: len(collector.of(EventKind.READY, "v1")) == 2)
        assert (await running.ask("v1"))[0] == 200


async def test_a_truncated_artefact_is_unready_by_its_file_once_and_loads_when_it_is_mended(
    running: Running, publish: Publish
) -> None:
    folder = publish("v1")
    publish("v2")
    file = folder / "model.onnx"
    whole = file.read_bytes()
    file.unlink()  # its bytes are another artefact's as well
    file.write_bytes(whole[: len(whole) // 2])
    running.registry.set(version("v1"), version("v2"))
    await running.ready("v2")
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))
    await asyncio.sleep(0.5)
    [unready] = running.collector.of(EventKind.UNREADY, "v1")  # no second attempt
    assert str(file) in unready.data["reason"]
    assert "sha256" in unready.data["reason"]
    file.write_bytes(whole)
    await running.ready("v1", "v2")


@pytest.mark.parametrize(
    ("artefact", "made", "reason"),
    [
        ("gone", {}, "no artefact 'gone'"),
        ("v1", {"answer": "something else"}, "golden answer 0 of v1"),
        ("v1", {"runtime": "vllm"}, "'vllm'"),
    ],
)
async def test_what_cannot_be_served_is_unready_with_the_reason(
    running: Running, publish: Publish, artefact: str, made: dict[str, str], reason: str
) -> None:
    publish("v1", **made)
    running.registry.set(version("v1", artefact=artefact))
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))
    [unready] = running.collector.of(EventKind.UNREADY, "v1")
    assert reason in unready.data["reason"]
    assert not running.registry.history
    assert not children(os.getpid())


async def test_a_whole_manifest_over_a_graph_that_does_not_load_is_unready(
    running: Running, store: Store, tiny: Tiny, publish: Publish
) -> None:
    manifest = store.manifest(publish("good").name)
    staging = store.staging("v1")
    for file in tiny.onnx.iterdir():
        (staging / file.name).write_bytes(file.read_bytes()[: 5000 if file.name == "model.onnx" else None])
    store.add(staging, msgspec.structs.replace(manifest, id="v1"))
    running.registry.set(version("v1"))
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))
    assert "can't load" in running.collector.of(EventKind.UNREADY, "v1")[0].data["reason"]


@pytest.mark.parametrize("selective", [True, False])
async def test_a_stream_says_how_sure_it_is_before_its_first_byte_only_where_the_route_serves_selectively(
    tmp_path: Path, store: Store, publish: Publish, selective: bool
) -> None:
    publish("v1")
    config = settings(tmp_path / "state", store, selective=selective)
    registry = FakeRegistry()
    registry.set(version("v1"))
    async with FakeCollector(socket_path(config.state)) as collector, engine(config, registry, collector) as running:
        await running.ready("v1")
        url = registry.endpoints["v1"] + "/chat/completions"
        body = {"messages": [{"role": "user", "content": "1: a red car"}], "temperature": 0, "max_tokens": 20}
        async with running.client.post(url, json={**body, "stream": True}) as response:
            assert ("x-retort-confidence" in response.headers) == selective
            assert ": retort-confidence 0." in await response.text()
        async with running.client.post(url, json=body) as response:
            assert 0.0 < float(response.headers["x-retort-confidence"]) < 1.0


async def test_an_artefact_whose_confidence_can_not_be_read_is_unready(
    running: Running, store: Store, publish: Publish
) -> None:
    folder = publish("good")
    manifest = store.manifest("good")
    staging = store.staging("v1")
    for file in folder.iterdir():
        (staging / file.name).write_bytes(file.read_bytes())
    (staging / "confidence.json").write_text('{"schema": 2, "method": "mean_probability"}')
    store.add(staging, msgspec.structs.replace(manifest, id="v1"))
    running.registry.set(version("v1"))
    await until(lambda: bool(running.collector.of(EventKind.UNREADY, "v1")))
    assert "confidence.json can't be used: schema 2" in running.collector.of(EventKind.UNREADY, "v1")[0].data["reason"]


async def test_a_registry_that_fails_for_a_while_stops_no_answers(running: Running, publish: Publish) -> None:
    publish("v1")
    publish("v2")
    running.registry.set(version("v1"))
    await running.ready("v1")
    running.registry.broken = True
    await asyncio.sleep(0.2)
    assert (await running.ask("v1"))[0] == 200
    running.registry.broken = False
    running.registry.set(version("v1"), version("v2"))
    await running.ready("v1", "v2")


async def test_stopping_withdraws_first_then_finishes_what_is_in_flight(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    config = settings(tmp_path / "state", store)
    registry = FakeRegistry()
    registry.set(version("v1"))
    async with FakeCollector(socket_path(config.state)) as collector:
        async with engine(config, registry, collector) as running:
            await running.ready("v1")
            url = registry.endpoints["v1"] + "/chat/completions"
            long = asyncio.create_task(running.ask_at(url, max_tokens=400))
            await asyncio.sleep(0.02)
            running.stop.set()
            await until(lambda: not registry.endpoints)
            assert (await running.ask_at(url))[0] == 200  # a gateway that has not read the registry yet
            status, body = await long
            assert (status, body["usage"]["completion_tokens"]) == (200, 400)
            await running.task
        assert [e.data["reason"] for e in collector.of(EventKind.UNREADY, "v1")] == ["the engine stops"]
    assert not children(os.getpid())


async def test_endpoints_that_a_killed_engine_left_behind_are_withdrawn_at_the_start(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    config = settings(tmp_path / "state", store)
    registry = FakeRegistry()
    registry.set(version("v1"), version("old"), version("foreign", engine="other"))
    registry.want = ["v1"]
    registry.endpoints = {v: f"http://127.0.0.1:9/versions/{v}/v1" for v in ("v1", "old", "foreign", "unknown")}
    async with FakeCollector(socket_path(config.state)) as collector, engine(config, registry, collector) as running:
        await running.ready("v1", "foreign", "unknown")
        await until(lambda: ":9/" not in registry.endpoints.get("v1", ":9/"))
        assert registry.history[-1] == ("publish", "v1")
        assert (await running.ask("v1"))[0] == 200
        assert collector.of(EventKind.UNREADY, "old")


async def test_workers_die_with_an_engine_that_is_killed(tiny: Tiny) -> None:
    program = (
        "import asyncio, sys, pathlib\nfrom gateway.engines.child import Child\n"
        "async def main():\n"
        "    child = await Child.start(pathlib.Path(sys.argv[1]), threads=1, timeout=60)\n"
        "    print(child.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tiny.onnx), stdout=asyncio.subprocess.PIPE
    )
    assert engine.stdout is not None
    worker = int(await engine.stdout.readline())
    assert alive(worker)
    engine.kill()
    await until(lambda: not alive(worker), seconds=5.0)
    await engine.stdout.read()  # to its end, which closes the pipe
    await engine.wait()


async def test_a_port_in_use_is_told_with_its_address(tmp_path: Path, store: Store) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    config = settings(tmp_path / "state", store, listen=address)
    with pytest.raises(CannotListen, match=rf"{address}.*in use.*engines\.\*\.listen"):
        await run(config, name="local", events=Events(), stop=asyncio.Event())
    server.close()
    await server.wait_closed()


async def test_with_the_real_registry_a_candidate_is_loaded_and_its_endpoint_seen(
    tmp_path: Path, store: Store, publish: Publish
) -> None:
    publish("v1")
    config = settings(tmp_path / "state", store)
    registry: Registry = open_registry(config.registry)
    registry.add_version(version("v1"))
    stop = asyncio.Event()
    async with FakeCollector(socket_path(config.state)):
        task = asyncio.create_task(run(config, name="local", events=Events(), stop=stop, seams=Seams(timing=TIMING)))
        await until(lambda: "v1" in registry.snapshot().endpoints)
        async with (
            aiohttp.ClientSession() as client,
            client.get(registry.snapshot().endpoints["v1"] + "/models") as response,
        ):
            assert (await response.json())["data"][0]["id"] == "v1"
        stop.set()
        await task
    assert "v1" not in registry.snapshot().endpoints
    registry.close()


def children(pid: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"gateway.engines.worker" in cmdline(int(child)):
                found.append(int(child))
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
