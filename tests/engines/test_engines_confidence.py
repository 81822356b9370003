"""What an engine says of how sure its student is: plain, streamed, and of inputs like nothing it has learnt."""

import json
import math
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from engine_fakes import ScriptedChild, ScriptedRuntime, Tiny, version

from exporters.models import Calibration, Confidence, Curve, GenAIGenerator
from exporters.models.confidence import FILE, NOVELTY_FILE, Gate
from exporters.models.novelty import Neighbours
from gateway.engines.child import Child
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.protocol import Assessed, Done, Event, Generate, Options, Piece, Started
from gateway.engines.schedule import Schedule
from gateway.engines.server import create_app
from router import Events

HEADER = "x-retort-confidence"
ANSWERS = {"a": b'{"community": "perl"}', "b": b"ab", "c": b"12345678"}


def curve(length: float, bias: float) -> Curve:
    """A map of the answer's length alone."""
    weights = (0.0, 0.0, 0.0, 0.0, length, 0.0, 0.0, 0.0)
    return Curve(centres=(0.0,) * 8, scales=(1.0,) * 8, weights=weights, bias=bias, slope=1.0, shift=0.0)


def logistic(z: float) -> float:
    return round(1 / (1 + math.exp(-z)), 6)


def calibrated(*, gate: float | None = None) -> Confidence:
    novelty = None if gate is None else Gate(threshold=gate, examples=1)
    known = Neighbours.of([[{"role": "user", "content": "a"}]])
    return Confidence(
        Calibration(method="logistic", whole=curve(1.0, 0.0), prefix=curve(-1.0, 0.5), novelty=novelty), known
    )


@asynccontextmanager
async def served(child: Any, *, selective: bool) -> AsyncIterator[Callable[..., Any]]:
    """An engine's HTTP server before a child; asks with one user message."""
    hosts = Hosts()
    hosts.add(Hosted(version("v1"), child, queue=4, selective=selective))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as client:

        async def ask(text: str, **fields: Any) -> tuple[Any, bytes]:
            body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
            url = f"http://{host}:{port}/versions/v1/v1/chat/completions"
            async with client.post(url, json=body) as response:
                assert response.status == 200, await response.text()
                return response.headers, await response.read()

        yield ask
    await runner.cleanup()


def scripted(confidence: Confidence | None = None) -> ScriptedChild:
    return ScriptedChild(ScriptedRuntime(ANSWERS), confidence)


def anonymous(stream: bytes) -> bytes:
    """Without what differs from answer to answer anyway."""
    return re.sub(rb'"id":"[^"]*"|"created":\d+', b"", stream)


async def test_a_plain_answer_bears_the_calibrated_confidence_of_the_whole() -> None:
    async with served(scripted(calibrated()), selective=True) as ask:
        headers, body = await ask("a")
    assert json.loads(body)["choices"][0]["message"]["content"] == ANSWERS["a"].decode()
    assert float(headers[HEADER]) == logistic(math.log1p(22))  # 21 tokens and the end


@pytest.mark.parametrize(("text", "tokens"), [("a", 8), ("b", 3), ("c", 8)])
async def test_a_stream_bears_its_beginnings_confidence_in_the_header_and_the_wholes_at_the_end(
    text: str, tokens: int
) -> None:
    async with served(scripted(calibrated()), selective=True) as ask:
        for _ in range(2):  # with the prompt in the cache, too
            headers, stream = await ask(text, stream=True)
            assert float(headers[HEADER]) == logistic(0.5 - math.log1p(tokens))
            whole = logistic(math.log1p(len(ANSWERS[text]) + 1))
            assert f": retort-confidence {whole:.6f}\n\n".encode() in stream


@pytest.mark.parametrize("text", ["a", "b", "c"])
async def test_a_buffered_beginning_changes_no_byte_of_the_stream(text: str) -> None:
    streams = []
    for selective in (True, False):
        async with served(scripted(calibrated()), selective=selective) as ask:
            asked = [await ask(text, stream=True, logprobs=True, stream_options={"include_usage": True}) for _ in "12"]
        assert all((HEADER in headers) == selective for headers, _ in asked)
        streams.append([anonymous(stream) for _, stream in asked])
    assert streams[0] == streams[1]
    assert streams[0][0].endswith(b"data: [DONE]\n\n")


def events(text: str, confidence: Confidence, **options: Any) -> list[Event]:
    sent: list[Event] = []
    schedule = Schedule(ScriptedRuntime(ANSWERS), sent.append, confidence=confidence)
    messages = [{"role": "user", "content": text}]
    schedule.take(Generate(id=1, messages=messages, options=Options(temperature=0.0, **options), at=0.0))
    while not schedule.idle:
        schedule.turn()
    return sent


def test_nothing_is_held_back_where_no_assessment_is_asked_for() -> None:
    plain, assessed = events("a", calibrated()), events("a", calibrated(), assess=True)
    assert not any(isinstance(e, Assessed) for e in plain)
    started, early, *rest = assessed
    assert isinstance(started, Started)
    assert isinstance(early, Assessed)
    assert rest == plain[1:]


def test_an_input_like_nothing_that_was_learnt_is_told_at_once_and_answered_all_the_same() -> None:
    confidence = calibrated(gate=0.5)
    novel = events("c", confidence, assess=True)
    assert novel[1] == Assessed(id=1, confidence=0.0)
    assert "".join(e.text for e in novel if isinstance(e, Piece)) == "12345678"
    assert sum(isinstance(e, Assessed) for e in novel) == 1
    assert isinstance(novel[-1], Done)
    assert novel[-1].confidence == 0.0
    known = events("a", confidence, assess=True)
    assert all(e.confidence > 0.0 for e in known if isinstance(e, Assessed | Done))


async def test_a_novel_input_has_the_confidence_zero_plain_and_streamed() -> None:
    async with served(scripted(calibrated(gate=0.5)), selective=True) as ask:
        assert (await ask("c"))[0][HEADER] == "0.000000"
        assert (await ask("c", stream=True))[0][HEADER] == "0.000000"
        assert float((await ask("a"))[0][HEADER]) > 0.0


@pytest.mark.e2e
async def test_a_real_worker_says_what_the_evaluation_computed_with_the_same_weights(
    tiny: Tiny, tmp_path: Path
) -> None:
    """So what was calibrated offline is what serves."""
    folder = tmp_path / "artefact"
    shutil.copytree(tiny.onnx, folder)
    prompts = [[{"role": "user", "content": f"{n}: a red car"}] for n in range(4)]
    Neighbours.of(prompts[:3]).save(folder / NOVELTY_FILE)
    weights = (0.7, 0.3, -0.4, 0.01, 0.2, -0.5, 0.1, 0.6)
    made = Curve(centres=(-1.0,) * 8, scales=(1.5,) * 8, weights=weights, bias=0.2, slope=1.1, shift=-0.3)
    calibration = Calibration(method="logistic", whole=made, prefix=made, novelty=Gate(threshold=0.9, examples=3))
    (folder / FILE).write_bytes(msgspec.json.encode(calibration))
    answers = GenAIGenerator(folder, threads=1).generate(prompts, max_new_tokens=12)
    confidence = Confidence.load(folder)
    child = await Child.start(folder, threads=1, timeout=60)
    try:
        async with served(child, selective=True) as ask:
            for prompt, answer in zip(prompts, answers, strict=True):
                known: dict[str, Any] = {
                    "finished": answer.finish_reason == "stop",
                    "novelty": confidence.novelty(prompt),
                }
                text = prompt[0]["content"]
                plain, _ = await ask(text, max_tokens=12)
                streamed, _ = await ask(text, max_tokens=12, stream=True)
                assert float(plain[HEADER]) == pytest.approx(confidence.whole(answer.logprobs, **known), abs=2e-6)
                assert float(streamed[HEADER]) == pytest.approx(confidence.prefix(answer.logprobs, **known), abs=2e-6)
                assert plain[HEADER] != streamed[HEADER]
    finally:
        await child.close()
