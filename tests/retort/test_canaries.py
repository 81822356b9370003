"""A thousand planted values over every field of requests and answers, plain and streamed: where are they afterwards?

Structured ones must be nowhere: in no record, no file, no spool, no log line, no metric, no dump of a killed process.
Names and addresses are found by models, with a floor.
"""

import asyncio
import json
import os
import re
import resource
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web
from canaries import UNSTRUCTURED, Canary, canaries
from loopback_teacher import teaching
from test_supervisor import child

from collector import Stream, open_interactions, open_log
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import Config, parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

EACH = 10  # values of one exchange: six in its request, four in its answer
FLOOR = 0.9


class Teacher:
    """Says in its answer what it is given to say, plain, in small pieces, or as an error."""

    def __init__(self) -> None:
        self.says: dict[str, list[Canary]] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        *said, bare = self.says[body["seed"]]
        one, two, three = (canary.sentence for canary in said)
        if body["seed"].endswith("7"):
            return web.json_response({"error": {"message": " ".join((one, two, three, bare.sentence))}}, status=400)
        arguments = json.dumps({"who": three, "list": [bare.leaf]})
        calls = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}]
        whole = {"id": "i", "created": 1, "model": "m"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": one, "refusal": two, "tool_calls": calls}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return web.json_response(whole | {"object": "chat.completion", "choices": [choice]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": one[i : i + 5]} for i in range(0, len(one), 5)]
        deltas += [{"refusal": two[i : i + 5]} for i in range(0, len(two), 5)]
        deltas.append({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look_up", "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": arguments[i : i + 5]}}]}
            for i in range(0, len(arguments), 5)
        ]
        for delta in deltas:
            chunk = whole | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        end = whole | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await response.write(b"data: " + json.dumps(end, ensure_ascii=False).encode() + b"\n\ndata: [DONE]\n\n")
        return response


@pytest.fixture
async def teacher() -> AsyncIterator[tuple[Teacher, int]]:
    made = Teacher()
    async with teaching(made.answer) as port:
        yield made, port


def request(number: int, planted: list[Canary]) -> dict[str, Any]:
    """A request with four sentences and two values alone under their keys, in other places each time."""
    at = number % 6
    *said, four, five = planted[at:] + planted[:at]
    one, two, three, six = (canary.sentence for canary in said)
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look_up", "arguments": json.dumps({"a": [four.leaf]})},
    }
    return {
        "model": "r",
        "seed": str(number),
        "stream": number % 2 == 1,
        "user": one,
        "messages": [
            {"role": "system", "content": f"You help. {two}"},
            {"role": "user", "content": [{"type": "text", "text": three}, {"type": "text", "text": "please"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"rows": [five.leaf]})},
            {"role": "user", "content": "and now?"},
        ],
        "metadata": {"note": six},
        "tools": [{"type": "function", "function": {"name": "look_up", "description": "d", "parameters": {}}}],
    }


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A log's URL, and the folder of its files."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/log.db", tmp_path
    broker = request.getfixturevalue("broker")
    return broker.url(f"canaries-{secrets.token_hex(4)}"), broker.folder


@pytest.fixture
def config_file(tmp_path: Path, teacher: tuple[Teacher, int], log: tuple[str, Path]) -> Path:
    (port,) = free_ports(1)
    config = {
        "state": str(tmp_path / "state"),
        "log": log[0],
        "listen": f"127.0.0.1:{port}",
        "scrub_workers": 2,
        "spool": {"key": "0f" * 32},
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher[1]}/v1"}},
        "routes": {"r": {"teachers": ["up/m"]}},
    }
    file = tmp_path / "retort.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


async def run(config: Config, file: Path, says: dict[str, list[Canary]], every: list[Canary]) -> str:
    """Send everything, kill the collector on the way; returns the metrics."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))  # a dump would be written
    retort = RetortProcess(file, f"http://{config.listen}", file.parent / "retort.log")
    await retort.start()
    url = f"http://{config.listen}/v1"
    try:
        async with httpx.AsyncClient(timeout=30) as client:
            for number in range(len(every) // EACH):
                some = every[number * EACH : (number + 1) * EACH]
                says[str(number)] = some[6:]
                headers = {"authorization": f"Bearer {every[number].value}".encode()}
                if number % 2:
                    headers["x-retort-subject"] = every[number * EACH].value.encode()
                answer = await client.post(f"{url}/chat/completions", json=request(number, some[:6]), headers=headers)
                assert answer.status_code == (400 if str(number).endswith("7") else 200)
                truth = {"request_id": answer.headers["x-retort-request-id"], "truth": some[0].sentence}
                await client.post(f"{url}/feedback", json=truth)
                if number in (20, 60):
                    while not (pid := child(retort.pid, "collector")):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                    os.kill(pid, signal.SIGABRT)  # with its dump, where there is one
            await client.post(f"{url}/chat/completions", content=json.dumps(every[0].sentence)[:-3].encode())
            log = open_log(config.log, kafka=config.kafka)
            async with asyncio.timeout(150):
                for stream in (Stream.INTERACTIONS, Stream.FEEDBACK):
                    while len(log.read(stream, 0, key="r")) < len(every) // EACH:  # noqa: ASYNC110
                        await asyncio.sleep(0.5)
            log.close()
            return (await client.get(f"http://{config.listen}/metrics")).text
    finally:
        assert await retort.stop() == 0


def forms(value: str) -> set[str]:
    """How a value may stand in bytes."""
    squeezed = re.sub(r"[\s-]", "", value)
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return {value, *escaped, *([squeezed] if len(squeezed) >= 8 else [])}


def left(every: Iterable[Canary], data: bytes) -> list[Canary]:
    return [canary for canary in every if any(form.encode() in data for form in forms(canary.value))]


async def test_a_thousand_planted_values_are_nowhere(
    tmp_path: Path, teacher: tuple[Teacher, int], config_file: Path, log: tuple[str, Path]
) -> None:
    every = canaries()
    assert len(every) == 1000
    config = parse(config_file.read_text(), {})
    metrics = await run(config, config_file, teacher[0].says, every)
    structured = [canary for canary in every if canary.kind not in UNSTRUCTURED]
    with open_interactions(config) as interactions:
        records = [record for _, record in interactions.of("r")]
        right = [answer for _, answer in interactions.right_answers("r")]
    kept = "\n".join(map(repr, (*records, *right)))
    assert len(records) == len({answer.request_id for answer in right}) == 100
    assert kept.count("and now?") == 100  # what is harmless is kept
    assert [c.sentence for c in left(structured, kept.encode())] == []
    missed = Counter(canary.kind for canary in left(every, kept.encode()))
    planted = Counter(canary.kind for canary in every)
    assert {
        kind: 1 - missed[kind] / planted[kind] for kind in UNSTRUCTURED if missed[kind] / planted[kind] > 1 - FLOOR
    } == {}
    assert left(every, metrics.encode()) == []
    assert not [file for folder in (tmp_path, Path.cwd()) for file in folder.glob("core*") if file.is_file()]
    files = {file for at in (tmp_path, log[1]) for file in at.rglob("*") if file.is_file()}
    kept_in = "log.db" if log[1] == tmp_path else "00000000000000000000.log"
    assert {kept_in, "retort.log", "subjects.db"} <= {file.name for file in files}
    for file in files:
        data = file.read_bytes().rstrip(b"\0")  # a broker's indices are mostly empty, and large
        assert left(every if file.name == "retort.log" else structured, data) == [], file
