"""`retort bootstrap` through a real gateway and a real collector: labels are in the log once, scrubbed, and evidence of
nothing; a run that was killed is completed by another, which asks nothing twice."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from aiohttp import web
from loopback_teacher import teaching

from collector import Interaction, Stream, open_interactions, open_log
from retort.demo.settings import free_ports
from retort.up import ready
from retrainer.data.dataset import build
from router import parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MANY, AT_ONCE = 120, 4
PERSONAL = "Call Annegret Wintergerst, annegret.wintergerst@example.com, about the red car"
CONFIG = """
state: {state}
listen: 127.0.0.1:{gateway}
upstreams: {{up: {{base_url: "http://127.0.0.1:{teacher}/v1", api_key: k, distillation_allowed: true,
                  prices: {{m: {{input: 2.0, output: 8.0}}}}}}}}
engines: {{local: {{}}}}
routes:
  colours: {{teachers: [up/m], student: {{}}, outcomes: {{window: 1h}}}}
  {labels}
"""
LABELS = "labels: {teachers: [up/m], capture: {rate: 0}}"
SCENARIOS = "system: You sell shoes.\nturns: [2, 2]\ncategories: {returns: 2, sizes: 1}\n"


class Teaching:
    """Answers the tiny task, plays users, and refuses each third question at first."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.refused = 0
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        asked = json.dumps(body["messages"])
        if len(self.bodies) % 3 == 0 and self.refused < 10:
            self.refused += 1
            return web.json_response({"error": {"message": "later"}}, status=429, headers={"retry-after": "0"})
        await asyncio.sleep(0.05)
        self.answered[asked] += 1
        said = tiny_model.answer(body["messages"][-1]["content"])
        if "You play a person" in asked:
            said = f"Do you have black shoes, number {len(self.bodies)}?"
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return web.json_response({"model": "m-2", "choices": [choice], "usage": usage})


async def retort(config: Path, *arguments: str) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command(config, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out, err


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "retort", *arguments, "--config", str(config)]


@asynccontextmanager
async def rooms(config: Path, gateway: int) -> AsyncIterator[None]:
    """A collector and a gateway worker."""
    with (config.parent / "rooms.log").open("wb") as output:
        started = [
            await asyncio.create_subprocess_exec(*command(config, room), stdout=output, stderr=output)
            for room in ("collector", "gateway")
        ]
    try:
        socket = config.parent / "state/run/collector.sock"
        await until(socket.exists)
        assert await ready(f"http://127.0.0.1:{gateway}", asyncio.Event())
        yield
    finally:
        for room in reversed(started):
            room.terminate()
            assert await asyncio.wait_for(room.wait(), 120) == 0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        await asyncio.sleep(0.02)


def of(config: Path, route: str) -> list[Interaction]:
    with open_interactions(parse(config.read_text(), {})) as interactions:
        return [record for _, record in interactions.of(route)]


async def test_a_route_without_traffic_is_labelled_once_and_nothing_counts_as_evidence(tmp_path: Path) -> None:
    teacher = Teaching()
    (gateway,) = free_ports(1)
    config, prompts, scenarios = tmp_path / "retort.yaml", tmp_path / "p.jsonl", tmp_path / "s.yaml"
    questions = [tiny_model.messages(n) for n in range(MANY)] + [[{"role": "user", "content": PERSONAL}]]
    prompts.write_text("".join(json.dumps({"messages": m}) + "\n" for m in [*questions, questions[0]]))
    scenarios.write_text(SCENARIOS)
    run = ["bootstrap", "colours", str(prompts), "--concurrency", str(AT_ONCE)]
    async with teaching(teacher.answer) as port:
        config.write_text(CONFIG.format(state=tmp_path / "state", gateway=gateway, teacher=port, labels=LABELS))
        async with rooms(config, gateway):
            code, _, err = await retort(config, *run)
            assert (code, b"say --yes" in err, len(teacher.bodies)) == (2, True, 0)
            assert b"121 to ask of up/m: about 121 calls, about 0.15 USD" in err

            killed = await asyncio.create_subprocess_exec(
                *command(config, *run, "--yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            await until(lambda: sum(teacher.answered.values()) >= MANY / 3)
            killed.kill()
            await killed.communicate()
            before = sum(teacher.answered.values())
            assert before < MANY

            code, out, err = await retort(config, *run, "--yes", "--json")
            assert code == 0, err
            told = json.loads(out)
            assert (told["tasks"], told["labelled"] + told["before"], told["left_out"]) == (121, 121, {})
            assert told["before"] > 0
            assert told["usd"] == pytest.approx(told["calls"] * (10 * 2.0 + 5 * 8.0) / 1e6)
            twice = sum(teacher.answered.values()) - 121
            assert 0 <= twice <= 3 * AT_ONCE, "only what was under way is asked again"

            after = len(teacher.bodies)
            code, out, _ = await retort(config, *run)
            assert (code, len(teacher.bodies)) == (0, after), "all is labelled: nothing is asked, of nobody"
            assert b"0 of 121 labelled by up/m, 121 were before" in out

            code, out, err = await retort(config, "bootstrap", "colours", str(scenarios), "--yes", "--temperature=none")
            assert code == 0, err
            assert b"6 exchanges; 12 calls" in out
            _, status, _ = await retort(config, "status", "--json")
        traffic = json.loads(status)["colours"]["traffic"]
        assert (traffic["requests"], traffic["imported"], traffic["teacher_cost"]) == (0, 127, 0.0)
        assert "Annegret" in json.dumps(teacher.bodies)
        check_log(config)


def check_log(config: Path) -> None:
    """121 labelled prompts and 6 answers of conversations, to be learnt from; no evidence, no personal data."""
    found = of(config, "colours")
    assert Counter(i.source for i in found) == {"bootstrap": 121 + 6}
    assert {(i.eligible, i.arm, i.answers[0].upstream) for i in found} == {(False, "teacher", "up/m")}
    assert {i.request.get("temperature") for i in found} == {0.3, None}
    assert found[0].answers[0].cost_usd == pytest.approx(60 / 1e6)
    assert of(config, "labels") == []
    assert evidence(config.parent) == []
    with open_interactions(parse(config.read_text(), {})) as interactions:
        dataset = build(interactions, "colours", max_examples=1000)
    kept = sum(dataset.manifest.counts.values())
    same = sum(dropped.count for dropped in dataset.manifest.dropped.values())
    assert kept + same == 127
    assert dataset.manifest.dropped.keys() <= {"duplicate"}, "two conversations may begin with the same words"
    assert dataset.manifest.upstreams == {"up/m": kept}
    for file in (config.parent / "state").rglob("*"):
        assert not file.is_file() or b"Wintergerst" not in file.read_bytes(), file
    assert "Wintergerst" not in repr(found)


def evidence(folder: Path) -> list[Any]:
    log = open_log(f"sqlite:///{folder}/state/log.db")
    try:
        return [entry for key in log.keys(Stream.EVIDENCE) for entry in log.read(Stream.EVIDENCE, 0, 1000, key=key)]
    finally:
        log.close()


@pytest.mark.parametrize(
    ("labels", "arguments", "says"),
    [
        ("other: {teachers: [up/m]}", (), "colours-labels: {teachers: [up/m], capture: {rate: 0}}"),
        (LABELS, ("--ask", "colours"), "must be a route without a student, with capture: {rate: 0}"),
        (LABELS, ("--ask", "nope"), "--ask 'nope': no such route"),
        (LABELS, ("--teacher", "up/x"), "--teacher 'up/x' is none of the route's"),
        (LABELS, ("--yes",), "no collector answers"),
        (LABELS, ("--concurrency", "0"), "argument --concurrency: must be 1 or more; got 0"),
    ],
)
async def test_labelling_that_can_not_be_says_what_would_be_right(
    labels: str, arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    config, prompts = tmp_path / "retort.yaml", tmp_path / "p.txt"
    config.write_text(CONFIG.format(state=tmp_path / "state", gateway=1, teacher=1, labels=labels))
    prompts.write_text("one\n")
    code, _, err = await retort(config, "bootstrap", "colours", str(prompts), *arguments)
    assert (code, b"Traceback" in err) == (2, False)
    assert says in err.decode()
