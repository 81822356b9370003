"""A tiny exported model, made once a session, and artefacts of it; fleets of played vLLM servers."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from engine_fakes import Served, Tiny, version

from exporters.models import Manifest, Store
from gateway.engines import vllm_dense
from gateway.engines.child import Child
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.server import create_app
from gateway.engines.vllm_environment import Environment
from gateway.engines.vllm_fleet import Fleet
from router import Events
from router.config_engines import EngineSettings

PROGRAM = Path(__file__).with_name("fake_vllm_program.py")
GOLDEN_PROMPT = [{"role": "user", "content": "golden"}]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    import tiny_model

    root = tmp_path_factory.mktemp("tiny")
    made = Tiny(tiny_model.build(root / "dense"), root / "onnx")
    command = [sys.executable, "-W", "ignore", "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    command += ["-i", str(made.dense), "-o", str(made.onnx), "-c", str(root / "cache")]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return made


@pytest.fixture(scope="session")
def golden_answer(tiny: Tiny) -> str:
    """What the tiny model says to GOLDEN_PROMPT, in 6 tokens, by onnxruntime-genai's own search."""
    from exporters.models import GenAIGenerator

    return GenAIGenerator(tiny.onnx, threads=1).generate([GOLDEN_PROMPT], max_new_tokens=6)[0].text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artefacts")


@pytest.fixture
def publish(store: Store, tiny: Tiny, golden_answer: str) -> Callable[..., Path]:
    """Put an artefact of the tiny model into the store; returns its folder."""

    def add(artefact: str, *, answer: str = golden_answer, runtime: str = "onnxruntime-genai") -> Path:
        staging = store.staging(artefact)
        for file in tiny.onnx.iterdir():
            (staging / file.name).write_bytes(file.read_bytes())
        manifest = Manifest(
            id=artefact,
            route="support",
            kind="chat",
            runtime=runtime,
            base="tiny",
            base_revision="0",
            quantization="fp32",
            created_at=1.0,
            files={},
            golden=[{"messages": GOLDEN_PROMPT, "answer": answer, "max_tokens": 6}],
        )
        store.add(staging, manifest)
        return store.path(artefact)

    return add


@pytest.fixture
async def served(tiny: Tiny) -> AsyncIterator[Served]:
    child = await Child.start(tiny.onnx, threads=1, timeout=60)
    hosts, events, emitted = Hosts(), Events(), []
    events.subscribe(lambda name, fields: emitted.append({"name": name, **fields}))
    hosted = Hosted(version("v1"), child, queue=4)
    hosts.add(hosted)
    runner = web.AppRunner(create_app(hosts, events=events), handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as client:
        yield Served(f"http://{host}:{port}/versions/v1", hosted, client, emitted)
    await runner.cleanup()
    await child.close()


@pytest.fixture
async def fleets(tmp_path: Path) -> AsyncIterator[Callable[..., Fleet]]:
    """Makes fleets of an engine `local`."""
    async with AsyncExitStack() as stack:

        def make(*, four_bits: bool = True, dense: Any = vllm_dense.dense, **vllm: Any) -> Fleet:
            async def asked(python: str) -> Environment:
                return Environment("cpu", four_bits)

            settings = EngineSettings.model_validate({"runtime": "vllm", "threads": 1, "vllm": vllm})
            fleet = Fleet("local", settings, tmp_path / "state", ask=asked, dense=dense)
            stack.push_async_callback(fleet.close)
            return fleet

        yield make


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Has the played program launched in vLLM's place: its interpreter is a script that runs it."""
    how = tmp_path / "how"

    def say(what: str) -> str:
        how.write_text(what)
        script = tmp_path / "python"
        paths = f"{PROGRAM.parent}:{Path(__file__).parents[2]}"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} -W ignore {PROGRAM} "$@" {how}\n')
        script.chmod(0o755)
        return str(script)

    return say
