"""The whole loop with a tiny, really trained model: captured, trained, proven, promoted, spoilt, rolled back.

Real processes (`retort up`), the real openai client, a teacher on loopback. Processes are killed on the way.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import openai
import pytest
import tiny_model
import yaml
from aiohttp import web

from collector import EventLog, Happened, Stream, decode_interaction, open_log, send_now, socket_path
from retort.demo.proxy import Fault, FaultyProxy
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import Arm, Config, EventKind, Registry, RouteEvent, Stage, decode_evidence, open_registry, parse

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.train, pytest.mark.timeout(240)]

EXAMPLES = 400
RATE = 20.0


async def teach(request: web.Request) -> web.Response:
    """Answers the tiny task after 200 ms."""
    body = await request.json()
    await asyncio.sleep(0.2)
    message = {"role": "assistant", "content": tiny_model.answer(body["messages"][-1]["content"])}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return web.json_response(
        {"id": "t", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    )


class Loop:
    """One `retort up` with its teacher, proxy and client."""

    def __init__(self, folder: Path, base: Path, log: str) -> None:
        self.gateway, teacher, engine, self.proxy_port = free_ports(4)
        self.teacher = teacher
        self.file = folder / "retort.yaml"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "state": str(folder / "state"),
                    "log": log,
                    "listen": f"127.0.0.1:{self.gateway}",
                    "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher}/v1", "distillation_allowed": True}},
                    "engines": {
                        "local": {
                            "listen": f"127.0.0.1:{engine}",
                            "advertise": f"http://127.0.0.1:{self.proxy_port}",
                            "threads": 1,
                        }
                    },
                    "routes": {
                        "colours": {
                            "claims": ["m"],
                            "teachers": ["up/m"],
                            "student": {"base": str(base)},
                            "quality": {"margin": 0.15, "audit_rate": 0.5},
                            "latency": {"slo_ms": 2000, "quantile": 0.5, "block": "200ms"},
                            "errors": {"promote_below": 0.05, "rollback_above": 0.1},
                            "rollout": {"steps": [0.5, 1.0], "min_dwell": "0s", "min_requests": 20, "holdback": 0.1},
                            "retrain": {
                                "min_new_examples": EXAMPLES, "every": "0s", "learning_rate": 5e-3, "epochs": 3,
                                "batch_size": 8, "quantization": "int8",
                            },
                        }
                    },
                }
            )
        )  # fmt: skip
        self.config: Config = parse(self.file.read_text(), {})
        self.proxy = FaultyProxy(f"http://127.0.0.1:{engine}")
        self.client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.gateway}/v1", api_key="k", max_retries=0)
        self.sent = 0
        self.failed: list[str] = []
        self.served: list[str] = []
        self.output = folder / "retort.log"
        self.retort = RetortProcess(self.file, f"http://127.0.0.1:{self.gateway}", self.output)

    async def kill(self, room: str) -> None:
        """SIGKILL for one of the supervisor's processes."""
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.retort.pid and room.encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)
                return
        raise AssertionError(f"no process {room}")

    def answers(self) -> bool:
        """Whether somebody listens on the gateway's port."""
        try:
            socket.create_connection(("127.0.0.1", self.gateway), 1).close()
        except OSError:
            return False
        return True

    async def ask(self, number: int) -> None:
        try:
            raw = await self.client.chat.completions.with_raw_response.create(
                model="m",
                messages=tiny_model.messages(number),
                max_tokens=24,
                temperature=0,  # type: ignore[arg-type]
            )
            self.served.append(raw.headers["x-retort-served-by"])
        except openai.OpenAIError as error:
            self.failed.append(repr(error))

    async def traffic(self, done: Callable[[], bool], *, most: int) -> None:
        """Open-loop requests until `done()`, at most so many."""
        tasks, began = set(), time.monotonic()
        for n in range(most):
            await asyncio.sleep(max(0.0, began + n / RATE - time.monotonic()))
            if n % 4 == 0 and done():
                break
            self.sent += 1
            tasks.add(asyncio.create_task(self.ask(self.sent)))
        await asyncio.gather(*tasks)

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output.read_text()[-4000:]
            await asyncio.sleep(0.1)


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the log is to be."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("broker").url(f"loop-{secrets.token_hex(4)}"))


@pytest.fixture
async def loop(tmp_path: Path, log_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loop]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two gain nothing on a tiny model, and lose a lot on a busy machine
    base = await asyncio.to_thread(tiny_model.build, tmp_path / "base")
    made = Loop(tmp_path, base, log_url)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", teach)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.teacher).start()
    await made.proxy.start(made.proxy_port)
    await made.retort.start()
    yield made
    if made.retort.running:
        await made.retort.stop()
    await made.client.close()
    await made.proxy.close()
    await runner.cleanup()


def stage(registry: Registry) -> tuple[str, Stage] | None:
    """Of the first version: traffic trains others meanwhile."""
    versions = registry.versions("colours")
    return (versions[0].id, versions[0].stage) if versions else None


def route_events(log: EventLog) -> list[RouteEvent]:
    found = [decode_evidence(e.value) for e in log.read(Stream.EVIDENCE, 0, 100_000, key="colours")]
    return [e for e in found if isinstance(e, RouteEvent)]


def register_twin(config: Config, registry: Registry, version: str) -> str:
    """Another candidate with the same weights, as a training cycle would register it; returns its id."""
    twin = msgspec.structs.replace(registry.version(version), id=f"{version}-twin", created_at=time.time())
    registry.add_version(twin)
    event = RouteEvent(
        id=f"candidate:{twin.id}", at=twin.created_at, route=twin.route, kind=EventKind.CANDIDATE, version=twin.id,
        data={"gate": "passed"},
    )  # fmt: skip
    send_now(socket_path(config.state), [Happened(event=event)])
    return twin.id


async def swap(loop: Loop, registry: Registry, first: str) -> str:
    """A better student takes the first one's place under traffic: both are loaded meanwhile, no request notices."""
    second = register_twin(loop.config, registry, first)
    await loop.until(lambda: second in registry.snapshot().endpoints, 60)
    command = asyncio.create_task(loop.retort.command("promote", "colours", second, "--why", "better"))
    await loop.traffic(lambda: second in loop.served, most=600)
    status, said = await command
    assert status == 0, said
    await loop.until(lambda: registry.version(first).stage is Stage.RETIRED, 10)
    await loop.traffic(lambda: False, most=20)
    assert set(loop.served[-10:]) <= {second, "teacher"}
    assert loop.failed == []
    return second


async def test_the_loop_turns_and_survives_kills_faults_and_a_stop(loop: Loop) -> None:
    registry = open_registry(loop.config.registry)
    log = open_log(loop.config.log)
    # Captured, though the collector is killed on the way: the gateway keeps what is not acknowledged.
    await loop.traffic(lambda: loop.sent >= 100, most=101)
    await loop.kill("collector")
    await loop.traffic(lambda: loop.sent >= EXAMPLES, most=EXAMPLES)
    # Trained, exported, loaded, though the retrainer is killed while it works.
    await loop.until(lambda: any((Path(loop.config.state) / "cycles").glob("*/state.json")), 60)
    await loop.kill("retrainer")
    await loop.until(lambda: stage(registry) is not None, 150)
    await loop.until(lambda: (stage(registry) or ("", None))[1] is Stage.SHADOW, 60)
    # Proven in shadow and over the steps, though promoter, engine and gateway were killed.
    for room in ("promoter", "engine", "gateway"):
        await loop.kill(room)
    await loop.until(lambda: sum(e.kind is EventKind.READY for e in route_events(log)) == 2, 60)
    await loop.until(loop.answers, 60)
    await loop.traffic(lambda: (stage(registry) or ("", None))[1] is Stage.LIVE, most=2000)
    found = stage(registry)
    assert found is not None
    version, now = found
    assert now is Stage.LIVE, loop.output.read_text()[-4000:]
    version = await swap(loop, registry, version)
    # The engine is killed while its student is live under traffic: users notice nothing, and the student serves again.
    ready = sum(e.kind is EventKind.READY for e in route_events(log))
    await loop.kill("engine")
    await loop.traffic(lambda: sum(e.kind is EventKind.READY for e in route_events(log)) > ready, most=600)
    loop.served.clear()
    await loop.traffic(lambda: version in loop.served, most=100)
    assert registry.version(version).stage is Stage.LIVE, [t.cause for t in registry.transitions("colours")]
    assert loop.failed == []
    assert version in loop.served
    # Wrong answers are noticed and taken out.
    loop.proxy.faults[version] = Fault.WRONG
    await loop.traffic(lambda: registry.version(version).stage is Stage.ROLLED_BACK, most=1000)
    assert registry.version(version).stage is Stage.ROLLED_BACK
    loop.proxy.faults.clear()
    # Promoted by hand; failures are taken out by the hard stop, and no client sees one.
    status, said = await loop.retort.command("promote", "colours", version, "--why", "mended")
    assert status == 0, said
    await loop.until(lambda: registry.snapshot().rollouts["colours"].live == version, 10)
    await asyncio.sleep(2.0)  # a rollout change reaches every worker within two seconds
    loop.proxy.faults[version] = Fault.FAILING
    await loop.traffic(lambda: registry.version(version).stage is Stage.ROLLED_BACK, most=400)
    causes = [t.cause for t in registry.transitions("colours") if t.version == version]  # others come meanwhile
    assert causes[-1] == "hard_stop", causes
    assert loop.failed == []
    assert version in loop.served
    # A stop drains: every exchange is in the log, once; and the log reproduces every decision.
    await loop.traffic(lambda: False, most=20)
    assert await loop.retort.stop() == 0
    kept = [decode_interaction(e.value) for e in log.read(Stream.INTERACTIONS, 0, 100_000, key="colours")]
    assert len(kept) == loop.sent
    assert {k.answers[0].arm for k in kept} == {Arm.TEACHER, Arm.STUDENT}
    status, said = await loop.retort.command("replay", "--json")
    assert status == 0, said
    assert json.loads(said)["colours"]["decisions"] == len(registry.transitions("colours"))
    registry.close()
    log.close()
