"""Two vLLM servers on one machine's cores, as during every rollout: what their threads cost each other.

    scripts/bench vllm_threads [--rounds 5]

SmolLM2 as it comes, greedy, over HTTP; a server alone, two at once, and one beside processes that compute as a training
does; with what an engine gives them by default (half of the cores each), with a thread for every core as an engine
starts that (they soon sleep while they wait), and with that as GNU OpenMP does it. Needs `scripts/install_vllm`, on a
machine without a GPU. Writes benchmarks/results/vllm_threads.json.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import results_file
from engine_prompts import story

from exporters.models.processors import processors
from gateway.engines.vllm_command import Served, command, environ
from gateway.engines.vllm_environment import Environment, ask
from gateway.engines.vllm_server import Server, free_port
from retrainer.base_models import find
from router.config_engines import EngineSettings

BASE = "SmolLM2-135M-Instruct"
PYTHON = Path(__file__).resolve().parents[1] / ".vllm" / "bin" / "python"
WAYS = ("by default", "a thread a core", "a thread a core, spinning")
LOADS = {  # servers that are asked, streams of each, whether somebody else computes
    "a server alone, 1 stream": (1, 1, False),
    "a server alone, 4 streams": (1, 4, False),
    "two servers, 1 stream each": (2, 1, False),
    "two servers, 4 streams each": (2, 4, False),
    "a server beside a training, 1 stream": (1, 1, True),
}
MOST = 24  # tokens of an answer
NICE = 10

Found = dict[str, float]


async def servers(stack: AsyncExitStack, way: str, folder: Path, scratch: Path, on: Environment) -> list[Server]:
    """Two of them."""
    threads = None if way == WAYS[0] else processors()
    settings = EngineSettings.model_validate({"runtime": "vllm", "threads": threads, "vllm": {"max_model_len": 2048}})
    model, made = Served(model=folder, name="bench", adapters=False), []
    for _ in range(2):
        port = free_port()
        given = environ({"PATH": "/usr/bin:/bin", "HOME": str(scratch)}, model, settings, on, cores=processors())
        if way == WAYS[2]:
            given.pop("GOMP_SPINCOUNT", None)
        line = command(model, settings, on, port)
        log = scratch / f"{port}.log"
        made.append(await Server.launch(str(PYTHON), line, given, port=port, log=log, timeout=300.0))
        stack.push_async_callback(made[-1].close)
    return made


async def answer(client: aiohttp.ClientSession, server: Server, number: int) -> float:
    """Seconds of one."""
    body = {
        "model": "bench", "messages": story(number), "temperature": 0.0, "max_tokens": MOST, "min_tokens": MOST,
        "ignore_eos": True,
    }  # fmt: skip
    began = time.monotonic()
    async with client.post(f"{server.url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        await response.read()
    return time.monotonic() - began


async def load(client: aiohttp.ClientSession, asked: list[Server], streams: int, first: int) -> Found:
    """An answer to each stream, all at once: tokens a second of all together, and the longest answer in seconds."""
    began = time.monotonic()
    places = [server for server in asked for _ in range(streams)]
    took = await asyncio.gather(*(answer(client, server, first + n) for n, server in enumerate(places)))
    return {"tokens_per_second": len(places) * MOST / (time.monotonic() - began), "longest": max(took)}


@contextmanager
def busy() -> Iterator[None]:
    """Somebody computes on every core, at a niceness of NICE; a training has more."""
    line = ["nice", "-n", str(NICE), sys.executable, "-c", "while True: pass"]
    working = [subprocess.Popen(line) for _ in range(processors())]
    try:
        yield
    finally:
        for process in working:
            process.kill()
            process.wait()


async def one_way(way: str, folder: Path, scratch: Path, on: Environment, rounds: int) -> dict[str, list[Found]]:
    """What each load came to, in each round."""
    found: dict[str, list[Found]] = {load: [] for load in LOADS}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)))
        both = await servers(stack, way, folder, scratch, on)
        number = 0
        for server in both:
            await answer(client, server, number)
        for n in range(rounds):
            for name, (count, streams, training) in LOADS.items():
                number += 100
                with busy() if training else nullcontext():
                    found[name].append(await load(client, both[:count], streams, number))
                print(f"{way}, round {n + 1} of {rounds}, {name}: {found[name][-1]}", flush=True)
    return found


async def measure(rounds: int) -> dict[str, dict[str, list[Found]]]:
    """By way."""
    with TemporaryDirectory() as work:
        scratch = Path(work)
        folder, on = find(BASE, scratch).folder, await ask(str(PYTHON))
        return {way: await one_way(way, folder, scratch, on, rounds) for way in WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    found = asyncio.run(measure(parser.parse_args().rounds))
    figures = {
        way: {
            name: {
                "tokens_per_second": round(statistics.median(one["tokens_per_second"] for one in rounds), 1),
                "longest_seconds": round(statistics.median(one["longest"] for one in rounds), 2),
                "longest_of_all_rounds": round(max(one["longest"] for one in rounds), 2),
            }
            for name, rounds in loads.items()
        }
        for way, loads in found.items()
    }
    ours, spinning = figures[WAYS[0]], figures[WAYS[2]]
    goals = [
        results_file.goal(f"{name}: tokens a second by default, times spinning", ratio, ">=", 1.0)
        for name in ("two servers, 1 stream each", "two servers, 4 streams each")
        for ratio in [round(ours[name]["tokens_per_second"] / spinning[name]["tokens_per_second"], 2)]
    ]
    results_file.write("vllm_threads", {"cores": processors(), "figures": figures}, goals)


if __name__ == "__main__":
    main()
