"""Two vLLM servers on one machine's cores, as during every rollout: what their threads cost each other.

    scripts/bench vllm_threads [--rounds 3] [--short]

SmolLM2 as it comes, greedy, over HTTP; a server alone and two at once, 1 and 4 streams each, with what an engine gives
them by default (half of the cores each), with a thread for every core as an engine starts that (they soon sleep while
they wait), and with that as GNU OpenMP does it. Each round takes all by turns. Needs `scripts/install_vllm`, on a
machine without a GPU. Writes benchmarks/results/vllm_threads.json.
"""

import argparse
import asyncio
import os
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import results_file
from engine_prompts import story

from gateway.engines.vllm_command import Served, command, environ
from gateway.engines.vllm_environment import Environment, ask, cores
from gateway.engines.vllm_server import Server, free_port
from retrainer.base_models import find
from router.config_engines import EngineSettings

BASE = "SmolLM2-135M-Instruct"
PYTHON = Path(__file__).resolve().parents[1] / ".vllm" / "bin" / "python"
WAYS = ("by default", "a thread a core", "a thread a core, spinning")
MOST = 24  # tokens of an answer
ANSWERS = 2  # of each stream

Found = dict[str, float]


async def servers(stack: AsyncExitStack, way: str, folder: Path, scratch: Path, on: Environment) -> list[Server]:
    """Two of them."""
    threads = None if way == WAYS[0] else cores()
    settings = EngineSettings.model_validate({"runtime": "vllm", "threads": threads, "vllm": {"max_model_len": 2048}})
    model, made = Served(model=folder, name="bench", adapters=False), []
    for _ in range(2):
        port = free_port()
        given = environ({"PATH": "/usr/bin:/bin", "HOME": str(scratch)}, model, settings, on, cores=cores())
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
    """All streams at once: tokens a second of all together, and the longest answer in seconds."""

    async def stream(server: Server, number: int) -> list[float]:
        return [await answer(client, server, number + n) for n in range(ANSWERS)]

    began = time.monotonic()
    places = [server for server in asked for _ in range(streams)]
    took = await asyncio.gather(*(stream(server, first + ANSWERS * n) for n, server in enumerate(places)))
    tokens = len(places) * ANSWERS * MOST
    return {"tokens_per_second": tokens / (time.monotonic() - began), "longest": max(map(max, took))}


async def one_round(way: str, folder: Path, scratch: Path, on: Environment, number: int) -> dict[str, Found]:
    """What each load came to."""
    found = {}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)))
        both = await servers(stack, way, folder, scratch, on)
        for server in both:
            await answer(client, server, number)
        for streams in (1, 4):
            for count in (1, 2):
                number += 100
                found[f"{count} of {streams}"] = await load(client, both[:count], streams, number)
    return found


async def measure(rounds: int) -> dict[str, list[dict[str, Found]]]:
    """By way, each round."""
    with TemporaryDirectory() as work:
        scratch = Path(work)
        folder, on = find(BASE, scratch).folder, await ask(str(PYTHON))
        told: dict[str, list[dict[str, Found]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS:
                told[way].append(await one_round(way, folder, scratch, on, 1000 * number))
                print(f"round {number + 1} of {rounds}, {way}: {told[way][-1]}", flush=True)
        return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one round, and nothing is written")
    options = parser.parse_args()
    os.chdir(PYTHON.parents[2])
    rounds = asyncio.run(measure(1 if options.short else options.rounds))
    if options.short:
        return

    def middle(way: str, at: str, of: str) -> float:
        return statistics.median(found[at][of] for found in rounds[way])

    figures = {
        way: {at: {of: round(middle(way, at, of), 2) for of in ("tokens_per_second", "longest")} for at in found[0]}
        for way, found in rounds.items()
    }
    worst = {way: max(found["2 of 4"]["longest"] for found in rounds[way]) for way in WAYS}
    ratio = figures[WAYS[0]]["2 of 4"]["tokens_per_second"] / figures[WAYS[2]]["2 of 4"]["tokens_per_second"]
    goals = [results_file.goal("two servers by default, times spinning ones: tokens a second", ratio, ">=", 1.0)]
    told = {"cores": cores(), "rounds": len(rounds[WAYS[0]]), "figures": figures, "longest_of_all_rounds": worst}
    results_file.write("vllm_threads", told, goals)


if __name__ == "__main__":
    main()
