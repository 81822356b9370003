"""What the gateway costs: CPU per request beside the smallest possible pass-through, measured in one run.

    scripts/bench gateway_cost [--harness ../shared/bench] [--rounds 3] [--seconds 4]

Needs `wrk` (a Debian package) and the harness folder with fake.py (the upstream) and gateway_cpu.py (the meter). The
gateway runs as `retort gateway` does in production, with one teacher-only route, every exchange captured and sent to a
collector's socket where a stand-in reads and acknowledges it; the stand-in's own time is not counted. The pass-through
is a plain ASGI endpoint on uvicorn with aiohttp behind it: it reads the body, sends it on, and gives back what comes.
Writes benchmarks/results/gateway_cost.json.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp
import results_file
import uvicorn
from processes import running, wait_for

from collector import socket_path
from collector.frames import ACK, PREFIX, unpack
from retort.demo.settings import free_ports

HERE = Path(__file__).resolve().parent
MODEL = "gpt-4o-mini"
RATIO_GOAL = 1.5
CONFIG = """
state: {state}
upstreams:
  fake: {{base_url: "http://127.0.0.1:{port}/v1", api_key: sk-fake}}
routes:
  bench:
    claims: [{model}]
    teachers: [fake/{model}]
"""


def main() -> None:
    options = _options()
    if options.role == "pass-through":
        _pass_through(options.port, options.upstream)
        return
    if options.role == "collector":
        asyncio.run(_collect(options.socket))
        return
    harness = Path(options.harness).resolve()
    if shutil.which("wrk") is None:
        raise SystemExit("gateway_cost: wrk is not installed; install Debian's package of that name")
    if not (harness / "gateway_cpu.py").is_file():
        raise SystemExit(f"gateway_cost: {harness} has no gateway_cpu.py; name the harness folder with --harness")
    results_file.write("gateway_cost", *_measure(harness, rounds=options.rounds, seconds=options.seconds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default=str(HERE.parent.parent / "shared" / "bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--role", choices=("pass-through", "collector"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--socket", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(harness: Path, *, rounds: int, seconds: int) -> tuple[dict, list[dict]]:
    upstream, passing, serving = free_ports(3)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = Path(folder) / "retort.yaml"
        config.write_text(CONFIG.format(state=folder, port=upstream, model=MODEL))
        (Path(folder) / "run").mkdir()
        own = [sys.executable, str(HERE / "gateway_cost.py")]
        started = {
            "upstream": [sys.executable, str(harness / "fake.py"), str(upstream)],
            "collector": [*own, "--role", "collector", "--socket", str(socket_path(folder))],
            "pass-through": [*own, "--role", "pass-through", "--port", str(passing), "--upstream", str(upstream)],
            "retort": [sys.executable, "-m", "retort", "gateway", "--config", str(config), "--port", str(serving)],
        }
        pids = {name: stack.enter_context(running(command, cwd=folder)) for name, command in started.items()}
        for port in (upstream, passing, serving):
            wait_for(port)
        rows: list[dict] = []
        for number in range(rounds):
            for name, port in (("pass-through", passing), ("retort", serving)):
                found = _meter(harness, name, pids[name], port, seconds=seconds)
                rows += [{**row, "round": number} for row in found]
    return _result(rows)


def _meter(harness: Path, name: str, pid: int, port: int, *, seconds: int) -> list[dict]:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = [sys.executable, str(harness / "gateway_cpu.py"), "--name", name, "--pid", str(pid), "--url", url]
    command += ["--model", MODEL, "--seconds", str(seconds), "--json"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    print(*lines, sep="\n", flush=True)
    return [json.loads(line) for line in lines]


def _result(rows: list[dict]) -> tuple[dict, list[dict]]:
    def best(name: str, mode: str) -> dict:
        return min((r for r in rows if r["name"] == name and r["mode"] == mode), key=lambda row: row["cpu_us"])

    figures: dict = {}
    goals = []
    for mode in ("plain", "stream"):
        ours, smallest = best("retort", mode), best("pass-through", mode)
        ratio = round(ours["cpu_us"] / smallest["cpu_us"], 2)
        figures[mode] = {"retort": ours, "pass_through": smallest, "ratio": ratio}
        name = f"CPU per {mode} request, times the smallest pass-through"
        goals.append(results_file.goal(name, ratio, "<=", RATIO_GOAL))
    bad = sum(row["non_2xx"] for row in rows)
    goals.append(results_file.goal("answers that were not 2xx", bad, "==", 0))
    return {"figures": figures, "rows": rows}, goals


def _pass_through(port: int, upstream: int) -> None:
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    session: aiohttp.ClientSession | None = None

    async def app(scope, receive, send):
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"content-type": "application/json", "authorization": "Bearer sk-fake"}
        async with session.post(url, data=body, headers=headers) as got:
            kept = [(b"content-type", got.headers["content-type"].encode())]
            if "content-length" in got.headers:
                whole = await got.read()
                kept.append((b"content-length", str(len(whole)).encode()))
                await send({"type": "http.response.start", "status": got.status, "headers": kept})
                await send({"type": "http.response.body", "body": whole})
                return
            await send({"type": "http.response.start", "status": got.status, "headers": kept})
            async for piece in got.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off")


async def _collect(path: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                sequence = unpack(await reader.readexactly(head)).sequence
                await reader.readexactly(body)
                writer.write(ACK.pack(sequence))
                await writer.drain()

    server = await asyncio.start_unix_server(serve, path)
    await server.serve_forever()


if __name__ == "__main__":
    main()
