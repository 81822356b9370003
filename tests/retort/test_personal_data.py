"""Personal data planted in every field of requests and answers reaches no file, through the real processes.

Fields are texts, JSON in texts, keys and numbers; what is planted is a text, a number, or escaped as a client may do.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
import yaml
from aiohttp import web
from loopback_teacher import teaching

from collector import Interaction, open_interactions
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLANTED = {
    "e-mail": "maria.oldenburg@acme-labs.org",
    "card": "4539 1488 0343 6467",
    "e-mail of another alphabet": "jürgen@müller-bau.de",
    "phone": "+49 171 5536624",
    "iban": "DE89 3704 0044 0532 0130 00",
    "key": "sk-proj-9aQ4mZx81LkTz0PqWvB3nYc7Rd5Fh2Ju6Ke8Gs1Mb4Xo",
    "bearer token": "9f8e7d6c5b4a39281706f5e4",
    "name": "Annegret Wintergerst",
}
ESCAPED = [r"maria.oldenburg\u0040acme-labs.org", "maria.oldenburg%40acme-labs.org"]
CARD, PHONE = (int(re.sub(r"\D", "", PLANTED[name])) for name in ("card", "phone"))
ALL = "; ".join(f"my {name} is {'Bearer ' * (name == 'bearer token')}{value}" for name, value in PLANTED.items())
KEYS = {value: 1 for name, value in PLANTED.items() if name != "bearer token"} | {str(PHONE): 1, f"+{PHONE}": 1}
NUMBERS = {"card": CARD, "phone": PHONE, "contacts": [PHONE, float(PHONE)], "tel": 1715536624}
MARK = "harmless-marker"  # what must be found, lest the test look at nothing


def call(arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}


def request(*, stream: bool) -> dict[str, Any]:
    nested = json.dumps({"note": json.dumps({"inner": ALL, **KEYS}), **NUMBERS, **KEYS})
    return {
        "model": "m",
        "stream": stream,
        "user": PLANTED["e-mail"],
        "messages": [
            {"role": "system", "content": f"{MARK}. {ALL}", "name": PLANTED["e-mail"]},
            {"role": "user", "content": [{"type": "text", "text": ALL}, {"type": "text", "text": PLANTED["key"]}]},
            {"role": "assistant", "content": None, "tool_calls": [call(nested)]},
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps([{PLANTED["e-mail"]: ALL, **KEYS}])},
            {"role": "user", "content": f'they sent {{"to": "{ESCAPED[0]}"}} to {ESCAPED[1]}'},
            {"role": "user", "content": '{"a": "' + PLANTED["e-mail"] + '", "a": "hidden by a second key"}'},
            {"role": "user", "content": '{"cut": "' + ALL},
        ],
        "tools": [{"type": "function", "function": {"name": "look_up", "description": ALL, "parameters": {}}}],
        "stop": [PLANTED["phone"]],
        "metadata": {"ticket": ALL, "headers": {"Authorization": f"Bearer {PLANTED['bearer token']}"}, **KEYS},
        "prediction": {"type": "content", "content": ALL},
        "x_unknown": {"deep": [{"er": ALL}], "float": float(CARD), **NUMBERS, **KEYS},
    }


def deltas() -> list[dict[str, Any]]:
    """The answer in pieces of seven characters, in content, refusal and a tool's arguments."""
    arguments = json.dumps({"who": ALL, **NUMBERS, **KEYS})
    pieces = [ALL[i : i + 7] for i in range(0, len(ALL), 7)]
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    found += [{"content": piece} for piece in pieces] + [{"refusal": piece} for piece in pieces]
    found.append({"tool_calls": [{"index": 0, **call("")}]})
    for i in range(0, len(arguments), 7):
        found.append({"tool_calls": [{"index": 0, "function": {"arguments": arguments[i : i + 7]}}]})
    return found


async def teach(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if body["messages"][0]["content"] == "fail":
        return web.json_response({"error": {"message": f"bad request of {ALL}", "type": "invalid"}}, status=400)
    whole = {"id": "i", "object": "chat.completion", "created": 1, "model": "m"}
    if not body.get("stream"):
        message = {
            "role": "assistant",
            "content": ALL,
            "refusal": ALL,
            "reasoning_content": ALL,
            "tool_calls": [call(json.dumps({"who": ALL, **NUMBERS, **KEYS}))],
            "annotations": [{"url_citation": {"title": ALL, **NUMBERS, **KEYS}}],
        }
        return web.json_response(whole | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for delta in deltas():
        chunk = whole | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    end = whole | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    await response.write(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
    return response


@pytest.fixture
async def teacher() -> AsyncIterator[int]:
    async with teaching(teach) as port:
        yield port


async def exchange(folder: Path, teacher: int) -> dict[Path, bytes]:
    """Run Retort, talk to it, and stop it; returns all files as they were just before the stop."""
    (port,) = free_ports(1)
    config = {
        "state": str(folder / "state"),
        "listen": f"127.0.0.1:{port}",
        "spool": {"key": "0f" * 32},
        "upstreams": {"up": {"base_url": f"http://127.0.0.1:{teacher}/v1"}},
        "routes": {"r": {"claims": ["m"], "teachers": ["up/m"]}},
    }
    file = folder / "retort.yaml"
    file.write_text(yaml.safe_dump(config))
    retort = RetortProcess(file, f"http://127.0.0.1:{port}", folder / "retort.log")
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=PLANTED["key"], max_retries=0)
    try:
        await retort.start()
        plain = await client.post("/chat/completions", cast_to=dict, body=request(stream=False))  # type: ignore[type-arg]
        assert PLANTED["card"] in json.dumps(plain)  # the client gets it as it was said
        async with client.chat.completions.with_streaming_response.create(**request_arguments()) as streamed:
            assert b"[DONE]" in await streamed.read()
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "fail"}], user=ALL)
        while len(interactions(folder)) < 3:  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.1)
        return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    finally:
        assert await retort.stop() == 0
        await client.close()


def interactions(folder: Path) -> list[Interaction]:
    with open_interactions(parse((folder / "retort.yaml").read_text(), {})) as found:
        return [record for _, record in found.of("r")]


def request_arguments() -> dict[str, Any]:
    body = request(stream=True)
    return {"model": "m", "messages": body.pop("messages"), "stream": True, "extra_body": body}


def in_the_clear(data: bytes) -> list[str]:
    """What of the planted is found in some bytes: as written, without its spaces, escaped, or as a number."""
    squeezed = data.replace(b" ", b"")
    found = [n for n, v in PLANTED.items() if v.encode() in data or v.replace(" ", "").encode() in squeezed]
    for number in (CARD, PHONE, 1715536624):
        packed = (msgspec.msgpack.encode(number), msgspec.msgpack.encode(float(number)))
        found += [str(number)] * any(form in data for form in (str(number).encode(), *packed))
    return found + [escaped for escaped in ESCAPED if escaped.encode() in data]


async def test_what_is_planted_in_every_field_is_in_no_file_in_the_clear(tmp_path: Path, teacher: int) -> None:
    running = await exchange(tmp_path, teacher)
    kept = interactions(tmp_path)
    assert [(k.stream, k.answers[0].status) for k in kept] == [(False, 200), (True, 200), (False, 400)]
    for interaction in kept:
        assert in_the_clear(repr(interaction).encode()) == [], interaction
    for interaction in kept[:2]:
        assert interaction.request["messages"][0]["content"].startswith(MARK)
        assert "my iban is" in str(interaction.answers[0].message)
    stopped = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert {"log.db", "log.db-wal"} <= {file.name for file in running}
    for files in (running, stopped):
        for file, data in files.items():
            assert in_the_clear(data) == [], file
