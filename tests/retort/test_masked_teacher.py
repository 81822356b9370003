"""Through the real processes: a teacher of a route that masks never meets personal data, and its clients don't notice.

The fake teacher keeps what it is sent and answers with the words that it was given.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import yaml
from aiohttp import web
from loopback_teacher import teaching

from collector import Interaction, mask_socket, open_interactions
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLANTED = {
    "name": "Annegret Wintergerst",
    "e-mail": "maria.oldenburg@acme-labs.org",
    "phone": "+49 171 5536624",
    "card": "4539 1488 0343 6467",
    "iban": "DE89 3704 0044 0532 0130 00",
    "key": "sk-proj-9aQ4mZx81LkTz0PqWvB3nYc7Rd5Fh2Ju6Ke8Gs1Mb4Xo",
}
ALL = "; ".join(f"my {name} is {value}" for name, value in PLANTED.items())
LOUD = f"MY NAME IS {PLANTED['name'].upper()}"
MORE = "Please write to joost.vandermeulen@example.net as well."


class Teacher:
    """Says what the conversation's first user said, in the form that it is asked for."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, str], Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.sent.append((dict(request.headers), body))
        given = next(m["content"] for m in body["messages"] if m["role"] == "user")
        arguments = json.dumps({"said": given, "list": [given.partition(";")[0].upper()]})
        call = {"id": "c1", "type": "function", "function": {"name": "note", "arguments": arguments}}
        if body.get("stream"):
            return await self._stream(request, given, call)
        if body.get("seed") == 400:
            error = {"message": f"refused: {given}", "type": "invalid", "param": None, "code": None}
            return web.json_response({"error": error}, status=400)
        message = {"role": "assistant", "content": f"You said: {given}", "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return web.json_response(
            {"id": "i", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )

    async def _stream(self, request: web.Request, given: str, call: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in cut(f"You said: {given}")]
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "index": 0, "function": {**function, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in cut(function["arguments"])]
        for delta in [*deltas, {}]:
            choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "tool_calls"}
            chunk = {"id": "i", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def cut(text: str) -> list[str]:
    """In pieces of one, two and three characters."""
    pieces, at = [], 0
    while at < len(text):
        size = 1 + len(pieces) % 3
        pieces.append(text[at : at + size])
        at += size
    return pieces


@pytest.fixture
async def teacher() -> AsyncIterator[tuple[Teacher, int]]:
    fake = Teacher()
    async with teaching(fake.answer) as port:
        yield fake, port


def configuration(folder: Path, port: int, teacher: int) -> Path:
    file = folder / "retort.yaml"
    config = {
        "state": str(folder / "state"),
        "listen": f"127.0.0.1:{port}",
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher}/v1", "api_key": "sk-operator"}},
        "routes": {"r": {"claims": ["m"], "teachers": ["up/m"], "capture": {"mask_teachers": True}}},
    }
    file.write_text(yaml.safe_dump(config))
    return file


async def answered(url: str) -> bool:
    """Whether a request without consent reaches the teacher; it can't be masked before the models are loaded."""
    body = {"model": "m", "messages": [{"role": "user", "content": ALL}]}
    async with (
        aiohttp.ClientSession(headers={"x-retort-consent": "no"}) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as got,
    ):
        assert got.status == 200 or (await got.json())["error"]["code"] == "masking_unavailable"
        return got.status == 200


async def converse(client: openai.AsyncOpenAI) -> None:
    """Plain, with its history, in a stream, and refused: each time the client gets its own words back."""
    messages: list[Any] = [{"role": "user", "content": ALL}]
    more: dict[str, Any] = {"model": "m", "user": PLANTED["name"], "extra_headers": {"x-retort-session": "one"}}
    plain = await client.chat.completions.create(messages=messages, **more)
    message = plain.choices[0].message
    assert message.content == f"You said: {ALL}"
    assert message.tool_calls
    arguments = message.tool_calls[0].function.arguments  # type: ignore[union-attr]
    assert json.loads(arguments) == {"said": ALL, "list": [LOUD]}
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": MORE}]
    again = await client.chat.completions.create(messages=messages, **more)
    assert again.choices[0].message.content == f"You said: {ALL}"
    said = called = ""
    async for chunk in await client.chat.completions.create(messages=messages, stream=True, **more):
        delta = chunk.choices[0].delta
        said += delta.content or ""
        for call in delta.tool_calls or ():
            called += (call.function.arguments if call.function else "") or ""
    assert said == f"You said: {ALL}"
    assert json.loads(called) == {"said": ALL, "list": [LOUD]}
    with pytest.raises(openai.BadRequestError, match="Annegret Wintergerst"):
        await client.chat.completions.create(messages=messages, seed=400, **more)


def interactions(file: Path) -> list[Interaction]:
    with open_interactions(parse(file.read_text(), {})) as found:
        return [interaction for _, interaction in found.of("r")]


def personal(data: Any) -> list[str]:
    """Which of the planted, or of their words, are in some data."""
    text = json.dumps(data, ensure_ascii=False, default=repr).casefold()
    squeezed = text.replace(" ", "")
    parts = [*PLANTED.values(), *PLANTED["name"].split(), "joost.vandermeulen"]
    return [p for p in parts if p.casefold() in text or p.casefold().replace(" ", "") in squeezed]


async def test_a_masked_teacher_meets_no_personal_data_and_the_client_gets_its_own_words(
    tmp_path: Path, teacher: tuple[Teacher, int]
) -> None:
    fake, teacher_port = teacher
    (port,) = free_ports(1)
    file = configuration(tmp_path, port, teacher_port)
    retort = RetortProcess(file, f"http://127.0.0.1:{port}", tmp_path / "retort.log")
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=PLANTED["key"], max_retries=0)
    try:
        await retort.start()
        async with asyncio.timeout(60):
            while not await answered(f"http://127.0.0.1:{port}"):
                assert fake.sent == []  # while the models load, nobody is asked
                await asyncio.sleep(0.3)
        fake.sent.clear()
        assert mask_socket(str(tmp_path / "state")).stat().st_mode & 0o777 == 0o600
        await converse(client)
        async with asyncio.timeout(60):
            while len(interactions(file)) < 4:  # noqa: ASYNC110 - another process writes them
                await asyncio.sleep(0.1)
    finally:
        assert await retort.stop() == 0
        await client.close()
    assert len(fake.sent) == 4
    for headers, body in fake.sent:
        assert personal([headers, body]) == []
    turns = [body["messages"] for _, body in fake.sent]
    assert turns[1] == turns[2] == turns[3]
    assert turns[1][0] == turns[0][0]
    assert turns[1][1]["content"] == f"You said: {turns[0][0]['content']}"
    kept = interactions(file)
    assert personal([k.request for k in kept] + [k.answers for k in kept]) == []
    assert [k.request["messages"] for k in kept] == turns
    assert kept[0].answers[0].message["content"] == turns[1][1]["content"]
    assert personal((tmp_path / "retort.log").read_text()) == []
