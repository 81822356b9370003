"""Calls in a student's answer leave the engine as OpenAI's tool_calls, plain and as a stream."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import openai
import pytest
from aiohttp import web
from engine_fakes import ScriptedChild, ScriptedRuntime, version

from exporters.models.tool_text import FORM
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.server import create_app
from router import Events

TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def call(name: str, text: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"at": "{text}"}}}}\n</tool_call>'


ANSWERS = {
    "one": call("look", "here"),
    "two": f"Let me see.\n{call('look', 'here')}\n{call('look', 'there')}",
    "foreign": call("erase", "disk"),
    "broken": "<tool_call>\nlook here\n</tool_call>",
    "none": "Nothing to look for, 1 < 2.",
}


@asynccontextmanager
async def asking(tools: str | None) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of an engine whose version has learnt tools in this form."""
    child: Any = ScriptedChild(ScriptedRuntime({k: v.encode() for k, v in ANSWERS.items()}))
    hosts = Hosts()
    hosts.add(Hosted(msgspec.structs.replace(version("v1"), tools=tools), child, queue=4))
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with openai.AsyncOpenAI(base_url=f"http://{host}:{port}/versions/v1/v1", api_key="k", max_retries=0) as made:
        yield made
    await runner.cleanup()


@pytest.mark.parametrize(
    ("asked", "text", "calls"),
    [
        ("one", None, [("look", "here")]),
        ("two", "Let me see.", [("look", "here"), ("look", "there")]),
        ("foreign", None, [("erase", "disk")]),
        ("broken", ANSWERS["broken"], []),
        ("none", ANSWERS["none"], []),
    ],
)
async def test_calls_are_told_from_text(asked: str, text: str | None, calls: list[tuple[str, str]]) -> None:
    fields: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": asked}], "tools": TOOLS}
    async with asking(FORM) as client:
        choice = (await client.chat.completions.create(**fields, temperature=0)).choices[0]
        stream = await client.chat.completions.create(**fields, temperature=0, stream=True)
        chunks = [chunk.choices[0] async for chunk in stream]
    said = choice.message.tool_calls or []
    assert [(c.function.name, json.loads(c.function.arguments)) for c in said] == [(n, {"at": at}) for n, at in calls]
    assert choice.message.content == text
    assert choice.finish_reason == ("tool_calls" if calls else "stop")
    streamed = [c for chunk in chunks for c in chunk.delta.tool_calls or ()]
    assert [c.index for c in streamed] == list(range(len(calls)))
    assert [c.function for c in streamed] == [
        type(c.function).model_validate(s.function.model_dump()) for c, s in zip(streamed, said, strict=True)
    ]
    assert len({c.id for c in (*streamed, *said)}) == 2 * len(calls)
    assert all(c.id and c.id.startswith("call_") for c in (*streamed, *said))
    assert "".join(chunk.delta.content or "" for chunk in chunks) == (text or "")
    assert chunks[-1].finish_reason == choice.finish_reason


async def test_without_tools_what_looks_like_a_call_is_text() -> None:
    messages: Any = [{"role": "user", "content": "one"}]
    async with asking(FORM) as client:
        for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
            got = await client.chat.completions.create(model="m", messages=messages, temperature=0, **more)
            assert got.choices[0].message.content == ANSWERS["one"]
            assert (got.choices[0].message.tool_calls, got.choices[0].finish_reason) == (None, "stop")


async def test_a_version_that_has_learnt_no_tools_refuses_them() -> None:
    messages: Any = [{"role": "user", "content": "one"}]
    async with asking(None) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert caught.value.param == "tools"
