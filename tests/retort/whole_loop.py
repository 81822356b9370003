"""A whole Retort for tests: `retort up` with a tiny student, a teacher on loopback, a proxy that can spoil answers, and
the real openai client."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import tiny_model
import yaml
from aiohttp import web

from collector import EventLog, Stream
from retort.demo.proxy import FaultyProxy
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from retort.demo.swap import register_twin
from router import Config, Registry, RouteEvent, Stage, decode_evidence, parse

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
    """One `retort up` with its teacher, proxy and client. `engine`, `student`, `retrain`: more of the configuration."""

    def __init__(
        self, folder: Path, base: Path, log: str, *, engine: dict[str, Any], student: dict[str, Any],
        retrain: dict[str, Any],
    ) -> None:  # fmt: skip
        self.gateway, teacher, engine_port, self.proxy_port = free_ports(4)
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
                            "listen": f"127.0.0.1:{engine_port}",
                            "advertise": f"http://127.0.0.1:{self.proxy_port}",
                            "threads": 1,
                            **engine,
                        }
                    },
                    "routes": {
                        "colours": {
                            "claims": ["m"],
                            "teachers": ["up/m"],
                            "student": {"base": str(base), **student},
                            "quality": {"margin": 0.15, "audit_rate": 0.5},
                            "latency": {"slo_ms": 2000, "quantile": 0.5, "block": "200ms"},
                            "errors": {"promote_below": 0.05, "rollback_above": 0.1},
                            "rollout": {"steps": [0.5, 1.0], "min_dwell": "0s", "min_requests": 20, "holdback": 0.1},
                            "retrain": {
                                "min_new_examples": EXAMPLES, "every": "0s", "learning_rate": 5e-3, "epochs": 3,
                                "batch_size": 8, **retrain,
                            },
                        }
                    },
                }
            )
        )  # fmt: skip
        self.config: Config = parse(self.file.read_text(), {})
        self.proxy = FaultyProxy(f"http://127.0.0.1:{engine_port}")
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


@asynccontextmanager
async def running(
    folder: Path, log: str, *, heads: int = 4, engine: dict[str, Any] | None = None,
    student: dict[str, Any] | None = None, retrain: dict[str, Any] | None = None,
) -> AsyncIterator[Loop]:  # fmt: skip
    """A Loop that runs. `heads`: of the student's base, see `tiny_model.build`."""
    base = await asyncio.to_thread(tiny_model.build, folder / "base", heads=heads)
    made = Loop(folder, base, log, engine=engine or {}, student=student or {}, retrain=retrain or {})
    app = web.Application()
    app.router.add_post("/v1/chat/completions", teach)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.teacher).start()
    await made.proxy.start(made.proxy_port)
    await made.retort.start()
    try:
        yield made
    finally:
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


async def swap(loop: Loop, registry: Registry, first: str, *, seconds: float = 60) -> str:
    """A better student takes the first one's place under traffic: both are loaded meanwhile, no request notices."""
    second = register_twin(loop.config, registry, first)
    await loop.until(lambda: second in registry.snapshot().endpoints, seconds)
    command = asyncio.create_task(loop.retort.command("promote", "colours", second, "--why", "better"))
    await loop.traffic(lambda: second in loop.served, most=600)
    status, said = await command
    assert status == 0, said
    await loop.until(lambda: registry.version(first).stage is Stage.RETIRED, 10)
    await loop.traffic(lambda: False, most=20)
    assert set(loop.served[-10:]) <= {second, "teacher"}
    assert loop.failed == []
    return second
