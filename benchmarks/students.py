"""Four students through the real gateway: one as it was trained, one better, one 10 points worse.

Their answers are those that a trained student really gave to 1,000 held-out records of the sample task (recorded in
benchmarks/data/student_answers.jsonl.gz), edited: the better one has two thirds of its mistakes mended, the worse one
names another community in 10 more of 100. `retort up` runs as a user would start it; what is made up are the students'
servers, which look answers up, so that thousands of requests take a minute.

The worse one comes first and must be rejected in shadow, before any user met it. The trained one must go live, then the
better one must take its place. A fourth one, on a route of its own with `selective: {max_risk: 0.05}`, is wrong on a
fifth of all records, and unsure of those and of as many more: it must go live on what it is sure of. Every decision
must be reproduced by the replay.

    scripts/bench students [--rate 60] [--json FILE]     FILE instead of benchmarks/results/students.json
"""

import argparse
import asyncio
import gzip
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import results_file
import yaml
from aiohttp import web

from collector import Happened, send_now, socket_path
from retort.demo.proxy import spoil
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from retort.sample.records import Package, by_name
from retort.sample.teacher import create_app
from router import Config, EventKind, Registry, RouteEvent, Stage, TaskKind, Version, open_registry, parse

RECORDED = Path(__file__).with_name("data") / "student_answers.jsonl.gz"
ROUTE, SELECTIVE = "community", "selective"
MAX_RISK = 0.05
THRESHOLDS = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
TEACHER_SECONDS, STUDENT_SECONDS = 0.05, 0.005
STEPS = [0.25, 1.0]
ENGINE = "looked-up"  # none that the configuration has: no engine process loads these versions
LONGEST = 240.0  # seconds that one student may take
LIVE_SECONDS = 10.0  # that a live one goes on serving
POLICY = {
    "teachers": ["up/m"],
    "student": {},
    "capture": {"rate": 0.0},  # nothing is learnt here, and pairs are scored in memory
    "quality": {"margin": 0.07, "audit_rate": 0.25},
    "latency": {"slo_ms": 1000, "quantile": 0.8, "block": "1s"},
    "errors": {"promote_below": 0.02, "rollback_above": 0.04},
    "rollout": {"steps": STEPS, "min_dwell": "5s", "min_requests": 200, "holdback": 0.05},
    "retrain": {"every": "0s", "min_new_examples": 1_000_000},
}


Answer = tuple[str, float]  # text and confidence


def students(seed: int = 0) -> dict[str, dict[str, Answer]]:
    """Answers by package, of `trained`, `better`, `worse` and `partial`."""
    rng = random.Random(seed)
    rows = [json.loads(line) for line in gzip.decompress(RECORDED.read_bytes()).splitlines()]
    trained = {row["package"]: row["said"] for row in rows}
    wrong = sorted(name for name, said in trained.items() if not _right(by_name()[name], said))
    right = sorted(trained.keys() - set(wrong))
    mended = set(rng.sample(wrong, 2 * len(wrong) // 3))
    spoilt = set(rng.sample(right, len(trained) // 10))
    unsure = rng.sample(sorted(trained), 2 * len(trained) // 5)
    mistaken = set(unsure[::2])
    doubts = {name: rng.uniform(0.2, 0.6) for name in unsure}
    made = {
        "trained": trained,
        "better": {name: by_name()[name].answer if name in mended else said for name, said in trained.items()},
        "worse": {name: _another(said) if name in spoilt else said for name, said in trained.items()},
        "partial": {name: _another(said) if name in mistaken else said for name, said in trained.items()},
    }
    return {
        version: {name: (said, doubts.get(name, 0.9) if version == "partial" else 0.9) for name, said in texts.items()}
        for version, texts in made.items()
    }


def agreement(answers: Mapping[str, Answer]) -> float:
    """The share of records on which these answers are the teacher's."""
    return sum(_right(by_name()[name], said) for name, (said, _) in answers.items()) / len(answers)


def _right(package: Package, said: str) -> bool:
    try:
        return bool(json.loads(said) == json.loads(package.answer))
    except ValueError:
        return False


def _another(said: str) -> str:
    completion = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
    return str(json.loads(spoil(completion))["choices"][0]["message"]["content"])


class Servers:
    """The teacher and the students' servers, on loopback."""

    def __init__(self, answers: Mapping[str, Mapping[str, Answer]], teacher_port: int, students_port: int) -> None:
        self._answers = answers
        self._ports = (teacher_port, students_port)
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        looked_up = web.Application()
        looked_up.router.add_post("/versions/{version}/chat/completions", self._say)
        for app, port in zip((create_app(latency=TEACHER_SECONDS), looked_up), self._ports, strict=True):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self._runners.append(runner)

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _say(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(STUDENT_SECONDS)
        name = body["messages"][-1]["content"].partition(":")[0]
        said, confidence = self._answers[request.match_info["version"]][name]
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "s", "object": "chat.completion", "model": "s", "choices": [choice]}
        return web.json_response(answer, headers={"x-retort-confidence": f"{confidence:.4f}"})


class Traffic:
    """Open-loop requests about the recorded packages, each a conversation of its own."""

    def __init__(self, url: str, packages: list[Package], rate: float) -> None:
        self._url, self._packages, self._rate = url, packages, rate
        self._rng = random.Random(1)
        self.served: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.failed = 0

    async def run(self, route: str, done: Callable[[], bool], seconds: float) -> None:
        """Send until `done()`, at most for so long."""
        tasks: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        async with aiohttp.ClientSession() as client:
            for n in range(int(seconds * self._rate)):
                await asyncio.sleep(max(0.0, began + n / self._rate - time.monotonic()))
                if n % 10 == 0 and done():
                    break
                task = asyncio.create_task(self._ask(client, route))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _ask(self, client: aiohttp.ClientSession, route: str) -> None:
        package = self._rng.choice(self._packages)
        body = {"model": route, "messages": package.messages}
        headers = {"x-retort-session": str(self._rng.random())}
        try:
            async with client.post(self._url, json=body, headers=headers) as response:
                answer = await response.json()
                if response.status == 200:
                    server = response.headers["x-retort-served-by"]
                    self.served[server] += 1
                    self.right[server] += _right(package, answer["choices"][0]["message"]["content"])
                else:
                    self.failed += 1
        except aiohttp.ClientError:
            self.failed += 1


def add(config: Config, registry: Registry, route: str, version: str, url: str) -> None:
    """Register a candidate that is served at once, as a training cycle and an engine would."""
    now = time.time()
    made = Version(
        id=version, route=route, kind=TaskKind.CHAT, base="b", engine=ENGINE, artefact=version, created_at=now
    )
    registry.add_version(made)
    registry.publish(version, engine=ENGINE, url=url)
    kinds = (
        (EventKind.CANDIDATE, {"gate": "passed", "thresholds": THRESHOLDS}),
        (EventKind.READY, {"engine": ENGINE, "url": url}),
    )
    events = [RouteEvent(id=f"{k}:{version}", at=now, route=route, kind=k, version=version, data=d) for k, d in kinds]
    send_now(socket_path(config.state), [Happened(event=event) for event in events])


async def run(folder: Path, rate: float) -> dict[str, Any]:
    """The whole run; what came of each student."""
    gateway, teacher, made_up = free_ports(3)
    file = folder / "retort.yaml"
    upstream = {"base_url": f"http://127.0.0.1:{teacher}/v1", "distillation_allowed": True}
    settings = {
        "state": str(folder / "state"),
        "listen": f"127.0.0.1:{gateway}",
        "upstreams": {"up": upstream},
        "engines": {"local": {}},
        "routes": {ROUTE: POLICY, SELECTIVE: {**POLICY, "selective": {"max_risk": MAX_RISK}}},
    }
    file.write_text(yaml.safe_dump(settings))
    config = parse(file.read_text(), {})
    answers = students()
    servers = Servers(answers, teacher, made_up)
    await servers.start()
    retort = RetortProcess(file, f"http://127.0.0.1:{gateway}", folder / "retort.log")
    await retort.start()
    while not socket_path(config.state).exists():  # noqa: ASYNC110 - the collector loads its models meanwhile
        await asyncio.sleep(0.2)
    registry = open_registry(config.registry)
    packages = [by_name()[name] for name in answers["trained"]]
    traffic = Traffic(f"http://127.0.0.1:{gateway}/v1/chat/completions", packages, rate)
    found: dict[str, Any] = {}
    try:
        for version in ("worse", "trained", "better", "partial"):
            route = SELECTIVE if version == "partial" else ROUTE
            found[version] = await _one(config, registry, traffic, (route, version), f"http://127.0.0.1:{made_up}")
            found[version]["agreement"] = agreement(answers[version])
            print(f"{version}: {found[version]}", flush=True)
        status, said = await retort.command("replay", "--json")
        stage = registry.version("trained").stage
        replay = {"status": status, **{route: row["decisions"] for route, row in json.loads(said).items()}}
        found["partial"]["selective"] = registry.status(SELECTIVE)["evidence"]["partial"]["selective"]
        return {"students": found, "trained_in_the_end": stage.value, "replay": replay, "failed": traffic.failed}
    finally:
        registry.close()
        await retort.stop()
        await servers.close()


async def _one(
    config: Config, registry: Registry, traffic: Traffic, place: tuple[str, str], url: str
) -> dict[str, Any]:
    (route, version), began = place, time.monotonic()
    before, right = traffic.served.copy(), traffic.right.copy()
    add(config, registry, route, version, f"{url}/versions/{version}")
    ends = (Stage.LIVE, Stage.REJECTED, Stage.ROLLED_BACK)
    await traffic.run(route, lambda: registry.version(version).stage in ends, LONGEST)
    if registry.version(version).stage is Stage.LIVE:
        await traffic.run(route, lambda: False, LIVE_SECONDS)
    made = [t for t in registry.transitions(route) if t.version == version]
    tests = [t.evidence.get("pairs") for t in made if t.evidence.get("pairs") is not None]
    served = traffic.served - before
    return {
        "stage": registry.version(version).stage.value,
        "causes": [t.cause for t in made],
        "pairs": tests[0] if tests and tests[0] else (tests[1] if len(tests) > 1 else 0),
        "requests": served.total(),
        "served_by_it": served[version],
        "right_of_those": traffic.right[version] - right[version],
        "seconds": round(time.monotonic() - began, 1),
    }


def _wrong(row: Mapping[str, Any]) -> float:
    return float(1.0 - row["right_of_those"] / row["served_by_it"]) if row["served_by_it"] else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retort-students-") as folder:
        figures = asyncio.run(run(Path(folder), options.rate))
    three = figures["students"]
    goals = [
        results_file.goal("worse: rejected", float(three["worse"]["stage"] == "rejected"), "==", 1.0),
        results_file.goal("worse: users served by it", float(three["worse"]["served_by_it"]), "==", 0.0),
        results_file.goal("trained: live", float("errors_passed" in three["trained"]["causes"]), "==", 1.0),
        results_file.goal("better: live", float(three["better"]["stage"] == "live"), "==", 1.0),
        results_file.goal("trained: retired", float(figures["trained_in_the_end"] == "retired"), "==", 1.0),
        results_file.goal("partial: live", float(three["partial"]["stage"] == "live"), "==", 1.0),
        results_file.goal("partial: wrong of those that it served", _wrong(three["partial"]), "<=", MAX_RISK),
        results_file.goal("partial: coverage", three["partial"]["selective"].get("coverage", 0.0), ">=", 0.5),
        results_file.goal("decisions that the replay doesn't reproduce", float(figures["replay"]["status"]), "==", 0.0),
        results_file.goal("failed requests", float(figures["failed"]), "==", 0.0),
    ]
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "goals": goals}))
        results_file.show("students", goals)
    else:
        results_file.write("students", figures, goals)


if __name__ == "__main__":
    main()
