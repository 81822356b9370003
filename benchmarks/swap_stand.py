"""One route in real processes: a gateway, an engine, a teacher on loopback and a collector that only acknowledges; with
a registry in SQLite, and students (see swap_student) in a store.

Nobody promotes here: whoever holds the stand moves versions, by the registry's own commits.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gateway_cost
import msgspec
import swap_student
import yaml
from aiohttp import web
from processes import wait_for

from exporters.models import GENAI, VLLM, Store
from gateway.engines.memory import resident
from retort.demo.settings import free_ports
from router import Rollout, Stage, TaskKind, Version, open_registry

ROUTE, ENGINE, TEACHER_WORD = "ways", "local", "teach "
HOLDBACK = 0.1
READY_SECONDS = 400.0
ROOT = Path(__file__).resolve().parents[1]


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of the stand knows no engine. `settings`: its own part of a configuration. `write`: the students as
    folders, each of which holds the file `mark`, that its `runtime` serves. `python`: an interpreter that it needs."""

    settings: dict[str, Any]
    write: Callable[[Path], dict[str, Path]]
    mark: str
    runtime: str
    python: Path | None = None


VLLM_PYTHON = ROOT / ".vllm" / "bin" / "python"
ENGINES = {
    "onnx": Engine(
        settings={"runtime": "onnxruntime", "threads": 1},
        write=swap_student.onnx,
        mark="genai_config.json",
        runtime=GENAI,
    ),
    "vllm": Engine(
        settings={"runtime": "vllm", "threads": 1, "vllm": {"python": str(VLLM_PYTHON)}},
        write=swap_student.folders,
        mark="config.json",
        runtime=VLLM,
        python=VLLM_PYTHON,
    ),
}


class Stand:
    """`students`: a written folder for each word. `engine`: of ENGINES. `settings`: more of the engine's. `patience`:
    seconds for the teacher, of which a student has a quarter."""

    def __init__(
        self,
        folder: Path,
        students: Mapping[str, Path],
        *,
        engine: str = "onnx",
        settings: Mapping[str, Any] = {},
        patience: float = 240.0,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.words = {"teacher": TEACHER_WORD}  # by who serves
        self.gateway_port, self.engine_port, self.teacher_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.gateway_port}/v1/chat/completions"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.students = students
        self._runtime = ENGINES[engine].runtime
        self._config = folder / "retort.yaml"
        (self.state / "run").mkdir(parents=True)
        listen = {"listen": f"127.0.0.1:{self.engine_port}", "queue": 400}
        given = {**ENGINES[engine].settings, **listen, **settings}
        self._config.write_text(yaml.safe_dump(self._configured(given, patience)))
        self.registry = open_registry(f"sqlite:///{self.state}/registry.db")
        self.store = Store(self.state / "artefacts")

    def _configured(self, engine: dict[str, Any], patience: float) -> dict[str, Any]:
        teacher = {"base_url": f"http://127.0.0.1:{self.teacher_port}/v1", "distillation_allowed": True}
        route = {
            "teachers": ["up/teacher"],
            "student": {"base": "word"},
            "capture": {"rate": 0.0},
            "rollout": {"holdback": HOLDBACK},
        }
        return {
            "state": str(self.state),
            "registry": f"sqlite:///{self.state}/registry.db",
            "artefacts": str(self.state / "artefacts"),
            "listen": f"127.0.0.1:{self.gateway_port}",
            "upstreams": {"up": {**teacher, "timeout": patience}},
            "engines": {ENGINE: engine},
            "routes": {ROUTE: route},
        }

    def start(self) -> None:
        """Start every process, and wait until the gateway listens."""
        socket = self.state / "run" / "collector.sock"
        self._start("collector", [gateway_cost.__file__, "--role", "collector", "--socket", str(socket)])
        self._start("teacher", [__file__, str(self.teacher_port)])
        wait_for(self.teacher_port)
        self.start_engine()
        self._start("gateway", ["-m", "retort", "gateway", "--config", str(self._config)])
        wait_for(self.gateway_port)

    def start_engine(self) -> None:
        """Start the engine, also one that was killed."""
        self._start("engine", ["-m", "retort", "engine", ENGINE, "--config", str(self._config)])
        wait_for(self.engine_port)

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)

    def stop(self) -> None:
        """End every process, the gateway first."""
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.registry.close()

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def add(self, version: str, word: str) -> None:
        """A version that is loaded and proven on return."""
        self.publish(version, word)
        self.register(version, word)
        self.until(lambda: version in self.registry.snapshot().endpoints)

    def publish(self, version: str, word: str) -> None:
        """Put its artefact into the store."""
        swap_student.publish(self.store, version, self.students[word], word, runtime=self._runtime)

    def register(self, version: str, word: str) -> None:
        """A candidate whose artefact is in the store already."""
        self.words[version] = word
        self.registry.add_version(
            Version(
                id=version, route=ROUTE, kind=TaskKind.CHAT, base="word", engine=ENGINE, artefact=version,
                created_at=time.time(),
            )
        )  # fmt: skip

    def live(self, version: str, *, back: bool = False) -> None:
        """From now on it serves; the one before has ended, or (with `back`) was rolled back."""
        before, _, offset = self.registry.checkpoint(ROUTE)
        stages = {version: Stage.LIVE}
        if before.live and before.live != version:
            stages[before.live] = Stage.ROLLED_BACK if back else Stage.RETIRED
        self.registry.commit(
            ROUTE,
            expected=(before.revision, offset),
            rollout=Rollout(route=ROUTE, revision=before.revision + 1, live=version),
            stages=stages,
            transitions=[],
            state=b"",
            offset=offset + 1,
            status={},
        )

    def until(self, condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
        """Wait. Raises SystemExit with the engine's last words where that takes too long, or the engine has ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self.processes["engine"].poll() is not None
            if ended or time.monotonic() > deadline:
                why = "the engine has ended" if ended else f"waited {seconds:.0f} s in vain"
                raise SystemExit(f"swap: {why}; the engine said:\n{self.log('engine')[-2000:]}")
            time.sleep(0.05)

    def workers(self) -> dict[str, int]:
        """The processes below the engine, each with all that is below it, by their version."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                versions = [name for word in words if (name := Path(word).name) in self.words]
                if parent == self.processes["engine"].pid and versions:
                    found[versions[0]] = int(entry.name)
        return found

    def memory(self) -> dict[str, int]:
        """Resident bytes of the engine, and of its workers together."""
        workers = [resident(pid) for pid in self.workers().values()]
        whole = resident(self.processes["engine"].pid)
        return {"engine": whole - sum(workers), "workers": sum(workers), "versions": len(workers)}

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far: of the gateway, the engine, and the workers that run now."""
        whole = {name: _cpu_seconds(self.processes[name].pid) for name in ("gateway", "engine")}
        workers = sum(map(_cpu_seconds, self.workers().values()))
        return {"gateway": whole["gateway"], "engine": whole["engine"] - workers, "workers": workers}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    below = [
        int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()
    ]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(_cpu_seconds, below))


async def teach(request: web.Request) -> web.StreamResponse:
    """The teacher: its word, as often as is asked for, a letter a token."""
    asked = await request.json()
    text = swap_student.said(TEACHER_WORD, asked["max_tokens"])
    common = {"id": "t", "created": 1, "model": "teacher"}
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        return web.json_response({**common, "object": "chat.completion", "choices": [choice]})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for delta, reason in (({"role": "assistant", "content": text}, None), ({}, "length")):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {**common, "object": "chat.completion.chunk", "choices": [choice]}
        await response.write(b"data: " + web.json_response(chunk).body + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


async def _teach(port: int) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", teach)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_teach(int(sys.argv[1])))
