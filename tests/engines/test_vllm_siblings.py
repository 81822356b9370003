"""Adapters on one server are asked their golden answers again whenever one comes or goes there; vLLM is played."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from engine_fakes import FakeCollector, FakeRegistry, until, version
from fake_vllm import FakeVllm, write_tokenizer
from idle_instance import IdleInstance
from vllm_students import GOLDEN, publish

from collector import socket_path
from exporters.models import Store
from gateway.engines.agent import Seams, run
from gateway.engines.errors import NotReady, WorkerGone
from gateway.engines.hosting import Hosted
from gateway.engines.siblings import Siblings
from gateway.engines.timing import Timing
from router import EventKind, Events, parse

TIMING = Timing(tick=0.05, grace=0.1, first_backoff=0.2, longest_backoff=0.5)


class Mixing(FakeVllm):
    """When the adapter `by` is loaded, or unloaded, the adapter `one` answers as another does. `cures`: until it is
    loaded anew."""

    by: tuple[str, str] | None = None
    cures = False

    async def _load(self, request: web.Request) -> web.Response:
        response = await super()._load(request)
        self._mix("load")
        return response

    async def _unload(self, request: web.Request) -> web.Response:
        response = await super()._unload(request)
        self._mix("unload")
        return response

    def _mix(self, how: str) -> None:
        if self.by is not None and self.by[0] == how and self.calls[-1][1].startswith(f"local.{self.by[1]}."):
            self.answers["one"] = b"two"
        elif self.cures and how == "load" and self.calls[-1][1].startswith("local.one."):
            self.answers["one"] = b"one"

    def asked(self, name: str) -> int:
        return sum(body["model"].startswith(f"local.{name}.") for body in self.bodies)


class Running(msgspec.Struct):
    fake: Mixing
    registry: FakeRegistry
    collector: FakeCollector

    async def serve(self, *names: str) -> None:
        self.registry.set(*(version(name) for name in names))
        await until(lambda: set(self.registry.endpoints) == set(names))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """`one`, `two` and `three` say their names; `wrong` doesn't."""
    store, source = Store(tmp_path / "artefacts"), tmp_path / "source"
    source.mkdir()
    write_tokenizer(source)
    (source / "adapter_config.json").write_text("{}")
    (source / "adapter_model.safetensors").write_bytes(b"weights")
    async with Mixing("base").running() as fake:
        assert isinstance(fake, Mixing)
        for name in ("one", "two", "three", "wrong"):
            publish(store, name, source, [{"messages": GOLDEN, "answer": name, "max_tokens": 8}])
            fake.answers[name] = name.encode()
        fake.answers["wrong"] = b"right"
        engine = {"runtime": "vllm", "vllm": {"urls": [fake.url], "adapters_on": str(source)}}
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
        seams = Seams(open_registry=lambda url: registry, timing=TIMING)  # type: ignore[arg-type, return-value]
        async with FakeCollector(socket_path(config.state)) as collector:
            task = asyncio.create_task(run(config, name="local", events=Events(), stop=stop, seams=seams))
            try:
                yield Running(fake, registry, collector)
            finally:
                stop.set()
                await task


async def test_those_beside_are_asked_again_when_one_comes_or_goes_and_never_between(running: Running) -> None:
    fake = running.fake
    await running.serve("one")
    assert fake.asked("one") == 1
    await running.serve("one", "two")
    await until(lambda: fake.asked("one") == 2)
    await running.serve("one")
    await until(lambda: fake.asked("one") == 3)
    assert fake.asked("two") == 1
    await asyncio.sleep(10 * TIMING.tick)
    assert (fake.asked("one"), fake.asked("two")) == (3, 1)
    assert not running.collector.of(EventKind.UNREADY, "one")


CHANGES = [
    (("load", "two"), ["one", "three"], ["one", "three", "two"], {"three", "two"}),
    (("unload", "two"), ["one", "three", "two"], ["one", "three"], {"three"}),
    (("load", "wrong"), ["one", "three"], ["one", "three", "wrong"], {"three"}),
    (("unload", "wrong"), ["one", "three"], ["one", "three", "wrong"], {"three"}),
]


@pytest.mark.parametrize(("by", "before", "after", "left"), CHANGES)
async def test_one_that_answers_otherwise_then_is_loaded_anew_under_another_name_and_serves_again(
    running: Running, by: tuple[str, str], before: list[str], after: list[str], left: set[str]
) -> None:
    fake, collector = running.fake, running.collector
    fake.by, fake.cures = by, True
    await running.serve(*before)
    running.registry.set(*(version(name) for name in after))
    await until(lambda: bool(collector.of(EventKind.UNREADY, "one")))
    await until(lambda: set(running.registry.endpoints) == {"one", *left})
    [unready] = collector.of(EventKind.UNREADY, "one")
    assert not unready.data["hopeless"]
    assert "golden answer 0 of one comes out different" in str(unready.data["reason"])
    loads = [name for kind, name in fake.calls if kind == "load" and name.startswith("local.one.")]
    assert len(set(loads)) == len(loads) == 2
    assert [name for name in fake.adapters if name.startswith("local.one.")] == loads[1:]
    assert not collector.of(EventKind.UNREADY, "three")


@pytest.mark.parametrize(("by", "before", "after", "left"), CHANGES)
async def test_one_that_is_still_another_when_it_is_loaded_anew_is_rejected_and_the_others_go_on(
    running: Running, by: tuple[str, str], before: list[str], after: list[str], left: set[str]
) -> None:
    fake, collector = running.fake, running.collector
    fake.by = by
    await running.serve(*before)
    running.registry.set(*(version(name) for name in after))
    await until(lambda: len(collector.of(EventKind.UNREADY, "one")) == 2)
    assert [told.data["hopeless"] for told in collector.of(EventKind.UNREADY, "one")] == [False, True]
    await until(lambda: set(running.registry.endpoints) == left)
    await until(lambda: not any(name.startswith("local.one.") for name in fake.adapters))
    await asyncio.sleep(10 * TIMING.tick)
    loads = [name for kind, name in fake.calls if kind == "load" and name.startswith("local.one.")]
    assert len(loads) == 2, "it is wanted, and not loaded again"
    assert not collector.of(EventKind.UNREADY, "three")


class Played:
    """`outcomes`: what comes of probing a version's child, by its id; `asked` and `failed`: the versions, in order."""

    def __init__(self, *hosted: Hosted) -> None:
        self.hosted = hosted
        self.outcomes: dict[str, BaseException] = {}
        self.asked: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.siblings = Siblings(
            lambda: self.hosted, probe=self.probe, failed=lambda h, why: self.failed.append((h.version.id, why))
        )

    async def probe(self, child: Any) -> None:
        self.asked.append(next(h.version.id for h in self.hosted if h.child is child))
        await self.free.wait()
        if self.asked[-1] in self.outcomes:
            raise self.outcomes[self.asked[-1]]


def hosted(name: str, place: object) -> Hosted:
    child = IdleInstance()
    child.place = place
    return Hosted(version(name), child, queue=1)  # type: ignore[arg-type]


async def test_a_probe_that_takes_too_long_or_a_server_that_ends_rejects_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = object()
    played = Played(*(hosted(name, server) for name in ("new", "busy", "gone", "odd", "bad", "good")))
    played.outcomes = {
        "busy": TimeoutError(),
        "gone": WorkerGone("it went"),
        "odd": ValueError(),
        "bad": NotReady("wrong"),
    }
    played.siblings.changed(played.hosted[0].child)
    await until(lambda: played.asked == ["busy", "gone", "odd", "bad", "good"])
    assert played.failed == [("bad", "probed again when another came to its server, or went: wrong")]
    told = [(r.levelno, r.getMessage()) for r in caplog.records]
    not_probed = (logging.WARNING, "engine.not_probed_again")
    assert told == [not_probed, not_probed, (logging.ERROR, "engine.probe_failed")]
    assert [vars(record).get("reason") for record in caplog.records[:2]] == ["TimeoutError: ", "WorkerGone: it went"]


async def test_only_those_on_the_same_server_are_asked_one_after_the_other_until_it_ends() -> None:
    server = object()
    played = Played(hosted("a", server), hosted("b", server), hosted("elsewhere", object()))
    played.free.clear()
    for one in played.hosted:
        played.siblings.changed(one.child)
    await until(lambda: bool(played.asked))
    await asyncio.sleep(0)
    assert played.asked == ["b"]
    played.free.set()
    await until(lambda: played.asked == ["b", "a"])
    played.free.clear()
    played.siblings.changed(played.hosted[0].child)
    await until(lambda: len(played.asked) == 3)
    await played.siblings.close()
    played.siblings.changed(played.hosted[0].child)
    played.free.set()
    await asyncio.sleep(0)
    assert played.asked == ["b", "a", "b"]
