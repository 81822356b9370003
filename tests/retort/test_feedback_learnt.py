"""The whole way of a right answer: a client reports it, and the next data set holds it, scrubbed, in the place of the
teacher's."""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import tiny_model
import yaml
from aiohttp import web
from loopback_teacher import teaching
from test_supervisor import child

from collector import Stream, open_interactions, open_log
from retort.cli import main
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, build
from router import Config, parse

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.timeout(240)]

REQUESTS = 120
NAME, EMAIL = "Annegret Wintergerst", "annegret.wintergerst@acme.org"
ASKED = f"I am {NAME}, {EMAIL}. Where is my order?"
RIGHT = f"It left our house today. You will hear from the carrier at {EMAIL}, {NAME}."


@pytest.fixture
async def teacher() -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.StreamResponse:
        said = {"role": "assistant", "content": "I can not know that."}
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        return web.json_response({"id": "i", "object": "chat.completion", "model": "m", "choices": [choice]})

    async with teaching(answer) as port:
        yield port


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.service)])
def config_file(request: pytest.FixtureRequest, tmp_path: Path, teacher: int) -> Path:
    url = f"sqlite:///{tmp_path}/state/log.db"
    if request.param == "kafka":
        url = request.getfixturevalue("broker").url(f"learnt-{secrets.token_hex(4)}")
    config = {
        "state": str(tmp_path / "state"),
        "log": url,
        "listen": f"127.0.0.1:{free_ports(1)[0]}",
        "spool": {"key": "0f" * 32},
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher}/v1"}},
        "routes": {"r": {"teachers": ["up/m"], "capture": {"retention_days": 7}}},
    }
    file = tmp_path / "retort.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


async def until_kept(config: Config, stream: Stream, count: int) -> None:
    log = open_log(config.log, kafka=config.kafka)
    async with asyncio.timeout(100):
        while len(log.read(stream, 0, 10_000, key="r")) < count:  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.3)
    log.close()


async def run(config: Config, file: Path) -> tuple[str, str]:
    """Ask, and report what would have been right; returns the ids of the two requests that were reported on."""
    retort = RetortProcess(file, f"http://{config.listen}", file.parent / "retort.log")
    await retort.start()
    try:
        async with httpx.AsyncClient(timeout=30, base_url=f"http://{config.listen}/v1") as client:

            async def ask(text: str) -> str:
                messages = [{"role": "system", "content": tiny_model.SYSTEM}, {"role": "user", "content": text}]
                headers = {"x-retort-subject": "annegret"} if text == ASKED else {}
                got = await client.post("/chat/completions", json={"model": "r", "messages": messages}, headers=headers)
                assert got.status_code == 200
                return str(got.headers["x-retort-request-id"])

            async def report(request_id: str, truth: str, **headers: str) -> None:
                body = {"request_id": request_id, "truth": truth}
                assert (await client.post("/feedback", json=body, headers=headers)).status_code == 202

            hers = await ask(ASKED)
            others = [await ask(tiny_model.question(number)) for number in range(REQUESTS)]
            await until_kept(config, Stream.INTERACTIONS, REQUESTS + 1)
            await report(hers, "This was right before.")
            await report(others[0], "Against this client's word.", **{"x-retort-consent": "no"})
            await until_kept(config, Stream.FEEDBACK, 1)
            os.kill(child(retort.pid, "collector"), signal.SIGKILL)  # what it knew of the requests is in the log alone
            await report(hers, RIGHT)
            await report(others[1], '{"colour": "none"}')
            await until_kept(config, Stream.FEEDBACK, 3)
            return hers, others[1]
    finally:
        assert await retort.stop() == 0


def made_of(config: Config) -> tuple[Dataset, dict[str, Example]]:
    with open_interactions(config) as interactions:
        made = build(interactions, "r", max_examples=1000)
        return made, {example.id: example for example in (*made.train, *made.held_out)}


async def test_a_right_answer_that_a_client_reports_is_learnt_scrubbed_and_as_a_correction(
    tmp_path: Path, config_file: Path
) -> None:
    config = parse(config_file.read_text(), {})
    hers, other = await run(config, config_file)
    made, examples = made_of(config)
    learnt = examples[hers]
    asked = learnt.messages[-1]["content"]
    name, email = asked.removeprefix("I am ").removesuffix(". Where is my order?").split(", ")
    assert learnt.answer == f"It left our house today. You will hear from the carrier at {email}, {name}."
    assert (len(name.split()), email.endswith("@example.com"), learnt.subject != "") == (2, True, True)
    assert {e.id for e in examples.values() if e.corrected} == {hers, other}
    assert (made.manifest.corrected, made.manifest.read) == (2, REQUESTS + 1)
    assert examples[other].answer == '{"colour": "none"}'
    assert {e.answer for e in examples.values() if not e.corrected} == {"I can not know that."}
    for file in tmp_path.rglob("*"):
        if file.is_file():
            data = file.read_bytes().lower()
            assert not any(word in data for word in (b"wintergerst", b"annegret")), file

    for command in ("erase", "export"):
        more = ["--subject", "annegret"] if command == "erase" else ["--route", "r", "--out", str(tmp_path / "o.jsonl")]
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, [command, *more, "--config", str(config_file)])
        assert not ended.value.code
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_bytes().splitlines()]
    assert {row["id"]: row["right_answer"]["content"] for row in rows if row["right_answer"]} == {
        other: '{"colour": "none"}'
    }
    _, examples = made_of(config)
    assert (hers in examples, examples[other].corrected) == (False, True)
