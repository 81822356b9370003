"""What one engine worker carries on this machine: closed-loop and open-loop load over HTTP, on the sample task.

    scripts/bench engine_load ARTEFACT_FOLDER [--threads 2] [--shots 0]

The demo leaves a trained student in state/artefacts/ under its folder. An untrained base needs `--shots 6`, which show
it the answer's form in the prompt (a shared beginning, which is read once). Writes benchmarks/results/engine_load.json.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp
import results_file
from aiohttp import web

from gateway.engines.child import Child
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.server import create_app
from retort.sample.records import SYSTEM_PROMPT, packages
from router import Events, TaskKind, Version

Message = dict[str, str]


def conversation(number: int, shots: int) -> list[Message]:
    """The n-th request of the sample task, after `shots` solved ones."""
    records = packages()
    draw = random.Random(0).sample(records, len(records))
    messages = [{"role": "system", "content": SYSTEM_PROMPT}]
    for record in draw[:shots]:
        messages += [{"role": "user", "content": record.question}, {"role": "assistant", "content": record.answer}]
    return [*messages, {"role": "user", "content": draw[shots + number].question}]


class Bench:
    """Sends requests to one served version and keeps their times."""

    def __init__(self, client: aiohttp.ClientSession, url: str, shots: int) -> None:
        self._client, self._url, self._shots = client, url, shots
        self._number = 0

    async def classify(self) -> tuple[float, int]:
        """One fresh record; (seconds, answer tokens)."""
        self._number += 1
        body = {"messages": conversation(self._number, self._shots), "temperature": 0, "max_tokens": 24}
        began = time.perf_counter()
        async with self._client.post(self._url, json=body) as response:
            answer = await response.json()
            response.raise_for_status()
        return time.perf_counter() - began, answer["usage"]["completion_tokens"]

    async def closed(self, clients: int, requests: int) -> dict[str, float]:
        """`clients` that each ask again as soon as they are answered."""
        done: list[tuple[float, int]] = []

        async def client() -> None:
            while len(done) + clients <= requests:
                done.append(await self.classify())

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return summary(done, time.perf_counter() - began)

    async def paced(self, rate: float, seconds: float) -> dict[str, float]:
        """Requests at random moments, `rate` a second, whether the ones before are answered or not."""
        tasks, draw, began = [], random.Random(1), time.perf_counter()
        while time.perf_counter() - began < seconds:
            tasks.append(asyncio.create_task(self.classify()))
            await asyncio.sleep(draw.expovariate(rate))
        done = await asyncio.gather(*tasks)
        return summary(done, time.perf_counter() - began)

    async def streams(self, clients: int, most: int) -> dict[str, float | None]:
        """Free answers of `most` tokens at most, sampled, streamed: tokens a second together, and the first chunk's
        time. A student of a narrow task ends its answers early; `tokens` says how long they were."""

        async def one(number: int) -> tuple[float | None, int]:
            text = f"Write a long story about a traveller who visits {number} towns and describes each of them."
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": most, "seed": number}
            began, first, tokens = time.perf_counter(), None, 0
            asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
            async with self._client.post(self._url, json=asked) as response:
                response.raise_for_status()
                async for line in response.content:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line.removeprefix(b"data: "))
                    if first is None and any(c["delta"].get("content") for c in chunk["choices"]):
                        first = time.perf_counter() - began
                    tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            return first, tokens

        began = time.perf_counter()
        done = await asyncio.gather(*(one(n + 2) for n in range(clients)))
        took = time.perf_counter() - began
        firsts = [first for first, _ in done if first is not None]
        return {
            "tokens": round(statistics.fmean(tokens for _, tokens in done), 1),
            "tokens_per_second": round(sum(tokens for _, tokens in done) / took, 1),
            "ttft_ms": ms(firsts, 0.5) if firsts else None,
        }


def summary(done: list[tuple[float, int]], took: float) -> dict[str, float]:
    """Rates and quantiles."""
    seconds = [s for s, _ in done]
    return {
        "requests": len(done),
        "per_second": round(len(done) / took, 1),
        "p50_ms": ms(seconds, 0.5),
        "p95_ms": ms(seconds, 0.95),
        "tokens": round(statistics.fmean(t for _, t in done), 1),
    }


def ms(seconds: list[float], quantile: float) -> float:
    """A quantile in milliseconds."""
    return round(sorted(seconds)[min(int(len(seconds) * quantile), len(seconds) - 1)] * 1000, 1)


async def main(options: argparse.Namespace) -> None:
    """Serve, load, report."""
    child = await Child.start(Path(options.folder), threads=options.threads, timeout=120)
    version = Version(id="bench", route="r", kind=TaskKind.CHAT, base="b", engine="e", artefact="bench", created_at=0.0)
    hosts = Hosts()
    hosts.add(Hosted(version, child, queue=1000))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/versions/bench/v1/chat/completions".format(*runner.addresses[0][:2])
    results: dict[str, Any] = {"threads": options.threads, "load_seconds": round(child.loaded.seconds, 2)}
    async with aiohttp.ClientSession() as client:
        bench = Bench(client, url, options.shots)
        await bench.closed(1, 10)
        for clients in (1, 4):
            results[f"classify, {clients} clients"] = await bench.closed(clients, options.requests)
        for rate in options.rates:
            results[f"classify, paced {rate:g}/s"] = await bench.paced(rate, options.seconds)
        for clients in (1, 4):
            results[f"stories, {clients} streams"] = await bench.streams(clients, 100)
    await runner.cleanup()
    await child.close()
    print(json.dumps(results, indent=2))
    results_file.write("engine_load", results, goals=[])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="*", default=[4, 8, 12])
    parser.add_argument("--seconds", type=float, default=15.0)
    asyncio.run(main(parser.parse_args()))
