"""A student of closed answers behind the real gateway and engine: `retort engine`, pinned to one core, and `retort
gateway`, with a teacher that only says that it was asked. The version is live with a threshold, so that what the
student isn't sure of is deferred."""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import web
from processes import running

from exporters.models import CLOSED, Manifest, Store
from retort.demo.settings import free_ports
from retrainer.data.curate import Example
from router import Rollout, Stage, TaskKind, Version, open_registry, parse

DEFERRED = "the teacher was asked"
CLIENTS = 16
CONFIG = """
state: {state}
listen: 127.0.0.1:{gateway}
upstreams: {{up: {{base_url: "http://127.0.0.1:{teacher}/v1", api_key: x, distillation_allowed: true}}}}
engines: {{local: {{threads: 1}}}}
routes:
  bench:
    teachers: [up/m]
    student: {{recipe: linear}}
    capture: {{rate: 0.0}}
    quality: {{audit_rate: 0.001}}
    rollout: {{holdback: 0.0}}
    selective: {{max_risk: {risk}}}
"""


class Served(NamedTuple):
    """Of the requests: `texts` in their order, DEFERRED where the teacher answered; of one client at a time, and of
    CLIENTS together."""

    texts: list[str]
    p50_ms: float
    p95_ms: float
    per_second: float


async def serve(artefact: Path, examples: Sequence[Example], *, threshold: float, risk: float, state: Path) -> Served:
    """Ask for every example once, by CLIENTS clients; and first for some of them one after another."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    runner = web.AppRunner(_teacher(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway, file = free_ports(1)[0], state / "retort.yaml"
    file.write_text(CONFIG.format(state=state, gateway=gateway, teacher=runner.addresses[0][1], risk=risk))
    _publish(file, artefact, threshold)
    cores = sorted(os.sched_getaffinity(0))
    with _retort(["engine", "local"], file, {cores[0]}), _retort(["gateway"], file, set(cores[1:] or cores)):
        async with aiohttp.ClientSession() as client:
            ask = _Ask(client, f"http://127.0.0.1:{gateway}/v1/chat/completions")
            await _ready(ask, examples)
            times = sorted([(await ask(e))[1] for e in examples[:300]])
            found: dict[int, str] = {}
            left = iter(range(len(examples)))

            async def work() -> None:
                for number in left:
                    found[number], _ = await ask(examples[number])

            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(CLIENTS)))
            took = time.perf_counter() - began
    await runner.cleanup()
    return Served(
        [found[n] for n in range(len(examples))],
        round(1000 * times[len(times) // 2], 2),
        round(1000 * times[len(times) * 95 // 100], 2),
        round(len(examples) / took, 1),
    )


class _Ask:
    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client, self._url = client, url

    async def __call__(self, example: Example) -> tuple[str, float]:
        began = time.perf_counter()
        async with self._client.post(self._url, json={"model": "bench", "messages": example.messages}) as response:
            answer = await response.json()
            response.raise_for_status()
        return answer["choices"][0]["message"]["content"], time.perf_counter() - began


async def _ready(ask: _Ask, examples: Sequence[Example]) -> None:
    """Until the student has answered one of them: it isn't sure of all."""
    until, number = time.monotonic() + 60, 0
    while time.monotonic() < until:
        with contextlib.suppress(aiohttp.ClientError):
            if (await ask(examples[number % len(examples)]))[0] != DEFERRED:
                return
        number += 1
        await asyncio.sleep(0.1)
    raise SystemExit("no answer of the student within a minute; see the engine's log in out/closed/served")


def _publish(file: Path, artefact: Path, threshold: float) -> None:
    config = parse(file.read_text(), {})
    store = Store(config.artefacts)
    staging = store.staging("bench")
    shutil.copytree(artefact, staging, dirs_exist_ok=True)
    made = Manifest(
        id="bench", route="bench", kind="chat", runtime=CLOSED, base="b", base_revision="0", quantization="",
        created_at=0.0, files={},
    )  # fmt: skip
    store.add(staging, made)
    registry = open_registry(config.registry)
    version = Version(
        id="bench", route="bench", kind=TaskKind.CHAT, base="b", engine="local", artefact="bench", created_at=0.0
    )
    registry.add_version(version)
    registry.commit(
        "bench",
        expected=(0, 0),
        rollout=Rollout(route="bench", revision=1, live="bench", live_threshold=threshold),
        stages={"bench": Stage.LIVE},
        transitions=[],
        state=b"",
        offset=1,
        status={},
    )
    registry.close()


def _teacher() -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        choice = {"index": 0, "message": {"role": "assistant", "content": DEFERRED}, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "model": "m", "choices": [choice]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    return app


@contextlib.contextmanager
def _retort(what: list[str], file: Path, cores: set[int]) -> Iterator[None]:
    def pin() -> None:
        os.sched_setaffinity(0, cores)

    command = [sys.executable, "-m", "retort", *what, "--config", str(file)]
    told = (file.parent / f"{what[0]}.log").open("wb")
    with told, running(command, stdout=told, stderr=told, preexec_fn=pin):
        yield
