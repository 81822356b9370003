"""Capture at the gateway's full speed: what it costs the gateway, and what becomes of all that is captured.

    scripts/bench capture_load [--harness ../shared/bench] [--rounds 5] [--seconds 4]

`retort gateway` as in production over the harness's fake upstream, driven by wrk as fast as it goes: capture rate 0,
rate 1.0, and rate 1.0 with the encrypted spool, in turn, each over gateways of their own. CPU is the gateway process's
per request; a round runs all, and each is compared with the rate 0 of its own round: what is told is the median over
the rounds, and the lowest and the highest. It is measured with a stand-in collector that reads and acknowledges, and
again with the real one (a scrub worker with its models, SQLite log), which on two cores shares them, and their caches,
with the gateway it is to serve: that figure holds what the machine lacks, not only what the gateway does.
wrk asks the same again and again, so the scrubber soon remembers it. The collector's own pace is told for such texts,
and for texts that nobody said before (package descriptions).
After the load the collector finishes, and every request is accounted for: kept, or counted as shed by the gateway or
the collector. Needs `wrk`. Writes benchmarks/results/capture_load.json.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import re
import secrets
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import gateway_cost
import results_file
from processes import running, wait_for

from collector import Call, Exchange, FrameSender, Stream, open_log, socket_path
from retort.demo.settings import free_ports
from router import Arm, Decision, Events, TaskKind

MODES = ("rate 0", "rate 1", "rate 1, spool", "rate 0, real", "rate 1, real", "rate 1, spool, real")
CONFIG = """
state: {state}
scrub_workers: 1
upstreams: {{fake: {{base_url: "http://127.0.0.1:{port}/v1", api_key: sk-fake}}}}
routes: {{bench: {{claims: [{model}], teachers: [fake/{model}], {capture}}}}}
{spool}
"""
EXTRA = 0.15
KNOWN_TEXTS, NEW_TEXTS = 20_000, 1_000
SETTLED = 5.0  # seconds without a change, until all that came is taken to be finished
REQUESTS = "retort_gateway_requests"
COUNTERS = (
    REQUESTS, "retort_collector_capture_shed", "retort_gateway_capture_skipped", "retort_collector_frames_dropped"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("capture_load: wrk is not installed; install Debian's package of that name")
    results_file.write("capture_load", *measure(options.harness.resolve(), options.rounds, options.seconds))


class Serving:
    """One gateway with its collector. `pid`: the gateway's."""

    def __init__(self, name: str, folder: Path, upstream: int, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.state = folder / name.replace(" ", "-").replace(",", "")
        self.port = free_ports(1)[0]
        self.state.mkdir()
        config = self.state / "retort.yaml"
        spool = f'spool: {{key: "{"0f" * 32}"}}' if "spool" in name else ""
        fields = {
            "state": self.state,
            "port": upstream,
            "model": gateway_cost.MODEL,
            "capture": f"capture: {{rate: {name[5]}}}",
        }
        config.write_text(CONFIG.format(spool=spool, **fields))
        run = [sys.executable, "-m", "retort"]
        socket = self.state / "run" / "collector.sock"
        collector = [*run, "collector", "--config", str(config)]
        if "real" not in name:
            socket.parent.mkdir()
            collector = [sys.executable, gateway_cost.__file__, "--role", "collector", "--socket", str(socket)]
        stack.enter_context(running(collector, cwd=folder))
        while not socket.exists():
            time.sleep(0.2)
        command = [*run, "gateway", "--config", str(config), "--port", str(self.port)]
        self.pid = stack.enter_context(running(command, cwd=folder))
        wait_for(self.port)

    def counted(self) -> dict[str, int]:
        """What came, and what of it was not kept, by its counter; all processes of this state folder."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as page:
            text = page.read().decode()
        found = dict.fromkeys(COUNTERS, 0.0)
        for name in COUNTERS:
            found[name] = sum(float(v) for v in re.findall(rf"^{name}_total(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))
        return {name: int(value) for name, value in found.items()}

    def kept(self) -> int:
        """Interactions in the log, once their number stands still."""
        log = open_log(f"sqlite:///{self.state}/log.db")
        try:
            last, since = -1, time.monotonic()
            while time.monotonic() < since + SETTLED:
                offset = log.end(Stream.INTERACTIONS, key="bench")
                if offset != last:
                    last, since = offset, time.monotonic()
                time.sleep(0.5)
            return last - 1
        finally:
            log.close()


def measure(harness: Path, rounds: int, seconds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    upstream = free_ports(1)[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(running([sys.executable, str(harness / "fake.py"), str(upstream)], cwd=folder))
        wait_for(upstream)
        serving = [Serving(name, Path(folder), upstream, stack) for name in MODES]
        rows: list[dict[str, Any]] = []
        for number in range(rounds):
            for one in serving[number % 2 :] + serving[: number % 2]:
                found = gateway_cost._meter(harness, one.name, one.pid, one.port, seconds=seconds)
                rows += [{**row, "round": number} for row in found]
                del rows[-1]["p50_c1"], rows[-2]["p50_c1"]  # the harness's, which is not this benchmark's question
        books = {one.name: {"kept": one.kept(), **one.counted()} for one in serving if "real" in one.name}
        state = serving[-2].state
        with gzip.open(harness.parent / "data" / "packages.jsonl.gz", "rt") as lines:
            texts = [json.loads(next(lines))["description"] for _ in range(NEW_TEXTS)]
        paced = {
            "of known texts": asyncio.run(pace(state, ["What is a retort?"] * KNOWN_TEXTS)),
            "of new texts": asyncio.run(pace(state, texts)),
        }
    figures, goals = result(rows, books)
    return {**figures, "collector's pace": paced}, goals


async def pace(state: Path, texts: list[str]) -> dict[str, Any]:
    """How many exchanges a second the collector takes to the log from one sender, with these texts."""
    message = {"role": "assistant", "content": "A vessel for distilling, or a quick answer."}
    answer = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
    made = Decision(
        route="bench", kind=TaskKind.CHAT, arm=Arm.TEACHER, version=None, propensity=1.0, policy_version="p",
        rollout_revision=0,
    )  # fmt: skip
    name = secrets.token_hex(4)
    served = Call(arm=Arm.TEACHER, upstream="fake/m", status=200, total_ms=1.0, body_bytes=len(answer))
    sender = FrameSender(socket_path(str(state)), events=Events())
    await sender.start()
    began, waited = time.monotonic(), 0
    for n, text in enumerate(texts):
        request = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
        exchange = Exchange(
            id=f"{name}-{n}", at=time.time(), path="/v1/chat/completions", decision=made, cluster=f"c{n % 100}",
            stream=False, capture=True, consent="opt-out", request_bytes=len(request), served=served, total_ms=1.0,
        )  # fmt: skip
        while sender.crowded:
            waited += 1
            await asyncio.sleep(0.01)
        sender.send(exchange, request, answer)
        if n % 200 == 0:
            await asyncio.sleep(0)
    left = await sender.drain(120)
    seconds = time.monotonic() - began
    await sender.close()
    size = sum(map(len, texts)) // len(texts)
    return {
        "exchanges": len(texts),
        "characters": size,
        "not acknowledged": left,
        "a second": round(len(texts) / seconds, 1),
    }


def result(rows: list[dict[str, Any]], books: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    figures: dict[str, Any] = {"accounts": books}
    goals = []
    for mode in ("plain", "stream"):
        cost = {(row["name"], row["round"]): row["cpu_us"] for row in rows if row["mode"] == mode}
        rounds = sorted({number for _, number in cost})
        figures[mode] = {
            f"{name}, CPU us a request": statistics.median(cost[name, n] for n in rounds) for name in MODES
        }
        for name in MODES:
            if name.startswith("rate 1"):
                least = "rate 0, real" if "real" in name else "rate 0"
                extra = [cost[name, n] / cost[least, n] - 1 for n in rounds]
                told = {"median": statistics.median(extra), "lowest": min(extra), "highest": max(extra)}
                figures[mode][f"{name}, more than rate 0"] = {key: round(value, 3) for key, value in told.items()}
                goals.append(
                    results_file.goal(f"{name}: CPU added to a {mode} request", round(told["median"], 3), "<=", EXTRA)
                )
    bad = sum(row["non_2xx"] for row in rows)
    dropped = sum(book["retort_collector_frames_dropped"] for book in books.values())
    goals += [
        results_file.goal("answers that were not 2xx", bad, "==", 0),
        results_file.goal("frames dropped", dropped, "==", 0),
    ]
    for name in ("rate 1, real", "rate 1, spool, real"):
        book = books[name]
        accounted = book["kept"] + book["retort_collector_capture_shed"] + book["retort_gateway_capture_skipped"]
        goals.append(results_file.goal(f"{name}: requests kept or counted", accounted, "==", book[REQUESTS]))
    return {**figures, "rows": rows}, goals


if __name__ == "__main__":
    main()
