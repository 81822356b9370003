"""The engine before vLLM servers that fail in their own ways (they are played): the other versions go on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from engine_fakes import FakeCollector, FakeRegistry, until, version
from fake_vllm import FakeVllm, write_tokenizer
from vllm_students import publish

from collector import socket_path
from exporters.models import Store
from gateway.engines.agent import Seams, run
from gateway.engines.reconcile import Timing
from router import EventKind, Events, parse

pytestmark = pytest.mark.e2e

TIMING = Timing(tick=0.05, grace=0.2, drain=5.0, hang=5.0, first_backoff=0.2, longest_backoff=0.5)


class Running(msgspec.Struct):
    """`old` and `new`: the servers of the versions of these names."""

    old: FakeVllm
    new: FakeVllm
    registry: FakeRegistry
    collector: FakeCollector
    client: aiohttp.ClientSession

    async def ask(self, name: str, **fields: Any) -> tuple[int, str]:
        """Status, and the text or the error's code."""
        body = {"messages": [{"role": "user", "content": "what colour?"}], **fields}
        url = self.registry.endpoints[name]
        async with self.client.post(f"{url}/chat/completions", json=body) as response:
            data = await response.json()
            if response.status != 200:
                return response.status, data["error"]["code"]
            return 200, data["choices"][0]["message"]["content"]

    async def ready(self, *names: str) -> None:
        await until(lambda: set(self.registry.endpoints) == set(names))

    def unready(self, name: str) -> list[str]:
        return [str(event.data["reason"]) for event in self.collector.of(EventKind.UNREADY, name)]


def put(store: Store, name: str, source: Path, **golden: Any) -> None:
    """A student that says its name."""
    source.mkdir(exist_ok=True)
    (source / "config.json").write_text("{}")
    write_tokenizer(source)
    messages = [{"role": "user", "content": "golden"}]
    publish(store, name, source, [{"messages": messages, "answer": name, "max_tokens": 8, **golden}])


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    store = Store(tmp_path / "artefacts")
    put(store, "old", tmp_path / "source")
    put(store, "new", tmp_path / "source", logprobs=[-0.25] * 4)
    async with FakeVllm("old", b"old").running() as old, FakeVllm("new", b"new").running() as new:
        engine = {"runtime": "vllm", "load_timeout": 5, "vllm": {"urls": [old.url, new.url]}}
        config = parse(
            f"""
state: {tmp_path / "state"}
artefacts: {tmp_path / "artefacts"}
upstreams: {{up: {{base_url: "http://127.0.0.1:9/v1", distillation_allowed: true}}}}
engines: {{local: {json.dumps(engine)}}}
routes: {{support: {{teachers: [up/big], student: {{engine: local}}}}}}
""",
            {},
        )
        registry, stop = FakeRegistry(), asyncio.Event()
        registry.set(version("old"))
        seams = Seams(open_registry=lambda url: registry, timing=TIMING)  # type: ignore[arg-type, return-value]
        async with FakeCollector(socket_path(config.state)) as collector, aiohttp.ClientSession() as client:
            task = asyncio.create_task(run(config, name="local", events=Events(), stop=stop, seams=seams))
            made = Running(old, new, registry, collector, client)
            try:
                await made.ready("old")
                yield made
            finally:
                stop.set()
                await task


async def test_a_version_that_passes_its_probes_once_is_not_probed_again(running: Running) -> None:
    running.registry.set(version("old"), version("new"))
    await running.ready("old", "new")
    asked = len(running.new.bodies)
    assert asked == 1
    await asyncio.sleep(0.5)
    assert len(running.new.bodies) == asked
    assert [await running.ask(name) for name in ("old", "new")] == [(200, "old"), (200, "new")]


async def test_a_server_that_is_well_and_hangs_is_seen_and_the_version_is_back_when_it_answers(
    running: Running,
) -> None:
    running.old.mode = "hangs"
    assert await asyncio.wait_for(running.ask("old"), 30) == (502, "worker_gone")
    await until(lambda: bool(running.unready("old")))
    assert "its process ended (it answered nothing; again in" in running.unready("old")[0]
    assert "old" not in running.registry.endpoints
    running.old.mode = "well"
    await running.ready("old")
    assert await running.ask("old") == (200, "old")


async def test_a_server_that_is_well_and_dies_at_the_first_request_is_never_ready(running: Running) -> None:
    running.new.mode, running.new.after = "dies", 0
    running.registry.set(version("old"), version("new"))
    await until(lambda: len(running.unready("new")) > 1)
    assert running.unready("new")[0].startswith("it was probed, and")
    assert not any(event.data["hopeless"] for event in running.collector.of(EventKind.UNREADY, "new"))
    assert set(running.registry.endpoints) == {"old"}
    assert await running.ask("old") == (200, "old")
    running.new.mode = "well"
    await running.ready("old", "new")


async def test_a_server_that_hangs_at_the_probes_is_left_alone_after_a_while(running: Running) -> None:
    running.new.mode = "hangs"
    running.registry.set(version("old"), version("new"))
    await until(lambda: bool(running.unready("new")))
    assert running.unready("new")[0].startswith("the probes took longer than 5 s")
    assert await running.ask("old") == (200, "old")


async def test_other_weights_are_rejected_for_good(running: Running) -> None:
    running.new.logprob = -1.5
    running.registry.set(version("old"), version("new"))
    await until(lambda: bool(running.unready("new")))
    [event] = running.collector.of(EventKind.UNREADY, "new")
    assert event.data["hopeless"]
    assert "has token 0 with a log probability of -1.50, recorded was -0.25" in event.data["reason"]


async def test_a_stream_that_breaks_ends_with_an_error_that_says_so(running: Running) -> None:
    running.old.mode, running.old.after = "breaks", 2
    body = {"messages": [{"role": "user", "content": "what colour?"}], "stream": True}
    url = running.registry.endpoints["old"]
    async with running.client.post(f"{url}/chat/completions", json=body) as response:
        text = await response.text()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events[:-1]) == "ol"
    assert events[-1]["error"]["code"] == "decode_failed"
    assert "[DONE]" not in text
    assert await running.ask("old", stop=["l"]) == (200, "o"), "the version goes on"


async def test_a_hundred_clients_that_leave_are_a_hundred_requests_less(running: Running) -> None:
    running.old.pause = 0.2
    url = f"{running.registry.endpoints['old']}/chat/completions"
    body = {"messages": [{"role": "user", "content": "what colour?"}], "stream": True}

    async def leave() -> None:
        async with running.client.post(url, json=body) as response:
            if response.status == 200:
                await response.content.readany()

    await asyncio.gather(*(leave() for _ in range(100)))
    await until(lambda: running.old.left == 64)  # the queue's length: the others were refused
    running.old.pause = 0.0
    assert await running.ask("old") == (200, "old")
