"""What masking costs: a request's time in the service, and the gateway's CPU for putting originals back in a stream.

    scripts/bench masking [--rounds 6]

The service is the real one: socket, scrub pool of one process, models. `new`: a request with a kilobyte of text that
was never seen. `six turns`: a conversation of six turns, at first, and then `repeated`.

The gateway is `retort gateway`, with one route that masks and one that doesn't, both to the same upstream, which
streams a word of prose in each event, every tenth a surrogate, with a pause after each. Who answers it on the mask
socket is the real server with a stand-in for the pool. CPU is the gateway process's, by the system's account, per
event; both routes take turns, and the least of each counts. Writes benchmarks/results/masking.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import results_file
from aiohttp import web
from faker import Faker

from collector import MaskClient, mask_socket, socket_path
from collector.frames import ACK, PREFIX, unpack
from collector.mask import MaskServer, masking
from collector.scrubbed import Scrubbed
from retort.demo.settings import free_ports
from router import Config, parse

CONFIG = """
state: {state}
upstreams: {{up: {{base_url: "http://127.0.0.1:{port}/v1", api_key: sk-x}}}}
routes:
  plain: {{teachers: [up/m]}}
  masked: {{teachers: [up/m], capture: {{mask_teachers: true}}}}
"""
REQUESTS = 30
STREAMS = 20  # at once
EVENTS = 300  # of a stream
PAUSE = 0.002
PAIRS = {"Brandi": "Annegret", "Gonzalez": "Wintergerst", "brandi.362@example.com": "annegret@acme.org",
         "+81 530 8836704": "+49 171 5536624", "Stephentown": "Erkelenz"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = asyncio.run(_service(folder))
        print(service, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stream = asyncio.run(_stream(folder, options.rounds))
        print(stream, flush=True)
    goal = results_file.goal
    goals = [
        goal("ms, masking a kilobyte of new text, median", service["new"]["median_ms"], "<", 250.0),
        goal("ms, masking a conversation whose history was read, median", service["repeated"]["median_ms"], "<", 5.0),
        goal("CPU per streamed event, times that of a route that doesn't mask", stream["ratio"], "<", 1.2),
    ]
    results_file.write("masking", {"service": service, "stream": stream}, goals)


async def _service(folder: str) -> dict[str, Any]:
    config = parse(CONFIG.format(state=folder, port=9), {})
    client = MaskClient(mask_socket(folder))
    fake = Faker("en_US")
    fake.seed_instance(3)
    new, turn, repeated = [], [], []
    async with masking(config):
        for n in range(REQUESTS):
            new.append(await _timed(client, f"new-{n}", [_message(fake, 1000)]))
            turns = [_message(fake, 300) for _ in range(11)]  # six questions, five answers
            turn.append(await _timed(client, f"c-{n}", turns))
            repeated.append(await _timed(client, f"c-{n}", turns))
        await client.close()
    return {
        "new": _summary(new),
        "six turns, new": _summary(turn),
        "repeated": _summary(repeated),
        "requests": REQUESTS,
    }


def _message(fake: Faker, size: int) -> dict[str, str]:
    text = f"Hi, this is {fake.name()}, please write to {fake.email()} or call {fake.phone_number()}. "
    return {"role": "user", "content": (text + fake.text(size))[:size]}


async def _timed(client: MaskClient, cluster: str, messages: list[dict[str, str]]) -> float:
    body = json.dumps({"model": "masked", "messages": messages}).encode()
    began = time.perf_counter()
    reply = await client.mask("masked", cluster, body, seconds=15.0)
    assert reply.pairs
    return (time.perf_counter() - began) * 1000.0


def _summary(times: list[float]) -> dict[str, float]:
    return {"median_ms": round(statistics.median(times), 2), "worst_ms": round(max(times), 2)}


class _Pool:
    """Masks nothing, and says what stands for what."""

    async def scrub(self, values: list[Any], **_: Any) -> Scrubbed:
        return Scrubbed(values, {}, PAIRS)


async def _stream(folder: str, rounds: int) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(_upstream())
        text = CONFIG.format(state=folder, port=port)
        config = parse(text, {})
        file = Path(folder) / "retort.yaml"
        file.write_text(text)
        await stack.enter_async_context(_collector(folder, config))
        url, pid = await stack.enter_async_context(_gateway(file))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        found: dict[str, list[float]] = {"plain": [], "masked": []}
        for number in range(rounds + 1):
            for route, costs in found.items():
                cost = await _cost(session, f"{url}/v1/chat/completions", route, pid)
                if number:  # the first one is for warming up
                    costs.append(cost)
    best = {route: round(min(costs), 1) for route, costs in found.items()}
    rows = {route: [round(cost, 1) for cost in costs] for route, costs in found.items()}
    return {"cpu_us_per_event": best, "ratio": round(best["masked"] / best["plain"], 3), "rows": rows,
            "streams": STREAMS, "events": EVENTS}  # fmt: skip


async def _cost(session: aiohttp.ClientSession, url: str, route: str, pid: int) -> float:
    """Microseconds of CPU per event."""

    async def one() -> None:
        body = {"model": route, "stream": True, "messages": [{"role": "user", "content": "go"}]}
        async with session.post(url, json=body) as got:
            came = await got.read()
            assert came.endswith(b"data: [DONE]\n\n")
            assert (b"Annegret" in came) == (route == "masked")

    before = _cpu(pid)
    for _ in range(3):
        await asyncio.gather(*(one() for _ in range(STREAMS)))
    return (_cpu(pid) - before) * 1e6 / (3 * STREAMS * EVENTS)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, to the nanosecond as the scheduler counts it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@contextlib.asynccontextmanager
async def _upstream() -> AsyncIterator[int]:
    draw = random.Random(5)
    words = re.findall(
        r"\s?\w+|\s?[^\w\s]", Path(__file__).parents[1].joinpath("docs", "evidence.md").read_text("utf-8")
    )
    names = [f" {name}" for name in PAIRS]
    said = [draw.choice(names) if n % 10 == 0 else words[n] for n in range(EVENTS)]
    top = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    events = [
        b"data: " + json.dumps({**top, "choices": [{"index": 0, "delta": {"content": word}}]}).encode() + b"\n\n"
        for word in said
    ]
    stop = json.dumps({**top, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
            await asyncio.sleep(PAUSE)
        await response.write(b"data: " + stop + b"\n\ndata: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_ports(1)[0]
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


@contextlib.asynccontextmanager
async def _collector(folder: str, config: Config) -> AsyncIterator[None]:
    """Takes the frames, as a collector does, and masks with `_Pool`."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                sequence = unpack(await reader.readexactly(head)).sequence
                await reader.readexactly(body)
                writer.write(ACK.pack(sequence))
        writer.close()

    socket_path(folder).parent.mkdir(exist_ok=True)
    server = await asyncio.start_unix_server(take, str(socket_path(folder)))
    async with MaskServer(config.routes, _Pool(), workers=4, salt=b"s" * 32).listening(mask_socket(folder)):
        yield
    server.close()


@contextlib.asynccontextmanager
async def _gateway(file: Path) -> AsyncIterator[tuple[str, int]]:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "retort", "gateway", "--config", str(file), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/readyz"):
                        break
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    main()
