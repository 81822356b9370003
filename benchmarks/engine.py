"""Tokens a second and the first token's time of the chat engine, beside bare onnxruntime-genai and vLLM.

    scripts/bench engine [--rounds 5] [--most 96] [--short]

SmolLM2 as it comes, greedy, 1, 4 and 16 streams at once over HTTP, 2 threads. Each round takes all engines by turns, a
ratio is of one round, and what is told is the median round's. No two prompts begin alike, so that all read each whole.
Bare onnxruntime-genai decodes a batch of its own, with no server and no streaming around it. vLLM serves the same
weights dense, where `scripts/install_vllm` has made its environment: as it comes, with its threads bound, and as an
engine with `runtime: vllm` starts it. int8 and int4 are the graphs that students are served as. Writes
benchmarks/results/engine.json.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import results_file
from engine_prompts import story
from engine_served import served

from exporters.models import GENAI, to_onnx
from exporters.models.processors import processors
from gateway.engines.vllm_command import Served, command, environ
from gateway.engines.vllm_environment import ask
from retrainer.base_models import find
from router.config_engines import EngineSettings

BASE = "SmolLM2-135M-Instruct"
THREADS = 2
STREAMS = (1, 4, 16)
VLLMS = {"vLLM, dense": False, "vLLM, dense, as an engine starts it": True}
ROOT = Path(__file__).resolve().parents[1]
VLLM = ROOT / ".vllm" / "bin" / "python"

Found = dict[str, float]


@asynccontextmanager
async def vllm(folder: Path, client: aiohttp.ClientSession, *, port: int, ours: bool) -> AsyncIterator[str]:
    """The address of a vLLM server of the same weights; `ours`: as an engine starts it."""
    given = {"PATH": "/usr/bin:/bin", "HOME": str(folder.parent)}
    if ours:
        settings = EngineSettings.model_validate({"runtime": "vllm", "vllm": {"max_model_len": 2048}})
        on, model = await ask(str(VLLM)), Served(model=folder, name="bench", adapters=False)
        arguments = command(model, settings, on, port)
        environment = environ(given, model, settings, on, cores=processors())
    else:
        arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "bench"]
        arguments += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "2048"]
        environment = {
            **given, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0-1",
            "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
    with (folder.parent / f"vllm_{port}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(VLLM, *arguments, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(300):
            try:
                async with client.get(f"{url}/models") as response:
                    response.raise_for_status()
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(1)
        else:
            raise SystemExit(f"vLLM did not start; {folder.parent}/vllm_{port}.log says why")
        yield url
    finally:
        process.terminate()
        await process.wait()


async def over_http(client: aiohttp.ClientSession, url: str, streams: int, most: int, number: int) -> Found:
    """`streams` answers at once: tokens a second together, and the median time of a first token, in seconds."""

    async def one(n: int) -> tuple[float, int]:
        began, first, tokens = time.perf_counter(), 0.0, 0
        body = {"model": "bench", "messages": story(100 * number + n), "max_tokens": most, "temperature": 0}
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with client.post(f"{url}/chat/completions", json=asked) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line.removeprefix(b"data: "))
                    if not first and any(c["delta"].get("content") for c in chunk["choices"]):
                        first = time.perf_counter() - began
                    tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return first, tokens

    began = time.perf_counter()
    done = await asyncio.gather(*(one(n) for n in range(streams)))
    took = time.perf_counter() - began
    return {
        "tokens_per_second": sum(tokens for _, tokens in done) / took,
        "ttft_ms": 1000 * statistics.median(first for first, _ in done),
    }


async def bare(folder: Path, streams: int, most: int) -> Found:
    """The same by onnxruntime-genai alone."""
    command = [sys.executable, ROOT / "benchmarks" / "engine_bare.py", folder, THREADS, streams, most]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    found = json.loads(told)
    return {"tokens_per_second": found["tokens"] / found["seconds"], "ttft_ms": 1000 * found["first"]}


async def measure(options: argparse.Namespace, work: Path) -> dict[str, list[Found]]:
    """What each engine came to in each round."""
    base = find(BASE, work / "base").folder
    graphs = {}
    for quantization in ("int8", "int4"):
        graphs[quantization] = work / quantization
        graphs[quantization].mkdir()
        to_onnx(base, graphs[quantization], quantization=quantization, log=work / "export.log")
    found: dict[str, list[Found]] = {}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        urls = {
            f"engine, {name}": await stack.enter_async_context(served(folder, GENAI, THREADS))
            for name, folder in graphs.items()
        }
        if VLLM.exists():
            for port, (name, ours) in enumerate(VLLMS.items(), start=8765):
                urls[name] = await stack.enter_async_context(vllm(base, client, port=port, ours=ours))
        for url in urls.values():
            await over_http(client, url, 2, 8, 99)
        for number in range(options.rounds):
            for place, streams in enumerate(STREAMS):
                asked = len(STREAMS) * number + place
                turns = {name: over_http(client, url, streams, options.most, asked) for name, url in urls.items()}
                turns |= {f"bare, {name}": bare(folder, streams, options.most) for name, folder in graphs.items()}
                for name, turn in turns.items():
                    result = await turn
                    found.setdefault(f"{name}, {streams}", []).append(result)
                    print(f"{number + 1}/{options.rounds} {name}, {streams}: {rounded(result)}", flush=True)
    return found


def rounded(result: Found) -> Found:
    return {key: round(value, 1) for key, value in result.items()}


def ratio(found: dict[str, list[Found]], one: str, other: str) -> float:
    """Tokens a second of one to those of the other, in the median round."""
    pairs = zip(found[one], found[other], strict=True)
    return round(statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=96, help="tokens of an answer")
    parser.add_argument("--short", action="store_true", help="one short round; writes nothing")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.most = 1, 16
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder)))
    goals = []
    for name in ("int8", "int4"):
        served = ratio(found, f"engine, {name}, 1", f"bare, {name}, 1")
        goals.append(results_file.goal(f"{name}: one stream, to bare onnxruntime-genai", served, ">=", 0.9))
        batch = ratio(found, f"engine, {name}, 16", f"engine, {name}, 1")
        goals.append(results_file.goal(f"{name}: 16 streams, to one", batch, ">=", 2.5))
    figures = {
        name: rounded({key: statistics.median(r[key] for r in rounds) for key in rounds[0]})
        for name, rounds in found.items()
    }
    print(json.dumps(figures, indent=1))
    if options.short:
        results_file.show("engine", goals)
    else:
        results_file.write("engine", {"rounds": options.rounds, "most": options.most, **figures}, goals)


if __name__ == "__main__":
    main()
