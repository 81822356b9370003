"""A student that thinks before it answers: what it thinks is told apart, plain and streamed, and counted."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from engine_fakes import ScriptedChild, ScriptedRuntime, version
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.server import create_app
from router.events import Events

ANSWERS = {
    "thinks": "<think>\nSix times\nseven é\n</think>\n\né42".encode(),
    "thinks on": b"<think>on and on",
    "says": b"<thin ice> is no thinking",
    "opened": b"hm\n</think>\n\n42",
}


class Opening(ScriptedRuntime):
    """Its template opens the thinking, where the request says so."""

    def encode(self, messages: Any) -> list[int]:
        asked = super().encode(messages)
        return [*asked, *b"<think>\n"] if messages[-1]["content"].startswith("opened") else asked

    def next_token(self, tokens: Any) -> int:
        line = bytes(t for t in tokens if t < 256).replace(b"opened\0<think>\n", b"opened\0")
        return super().next_token([*line, *(t for t in tokens if t >= 256)])


@asynccontextmanager
async def served(*, selective: bool = False) -> AsyncIterator[Any]:
    hosts = Hosts()
    hosts.add(Hosted(version("v1"), ScriptedChild(Opening(ANSWERS)), queue=4, selective=selective))  # type: ignore[arg-type]
    runner = web.AppRunner(create_app(hosts, events=Events()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as client:

        async def ask(text: str, **fields: Any) -> str:
            body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
            url = f"http://{host}:{port}/versions/v1/v1/chat/completions"
            async with client.post(url, json=body) as response:
                assert response.status == 200, await response.text()
                return await response.text()

        try:
            yield ask
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    ("asked", "reasoning", "content", "tokens"),
    [
        ("thinks", "Six times\nseven é", "é42", len("<think>\nSix times\nseven e\n</think>") + 1),
        ("thinks on", "on and on", "", len("<think>on and on")),
        ("says", None, "<thin ice> is no thinking", 0),
        ("opened", "hm", "42", len("hm\n</think>")),
    ],
)
@pytest.mark.parametrize("selective", [False, True])
async def test_thinking_is_told_apart_from_the_answer_plain_and_streamed(
    asked: str, reasoning: str | None, content: str, tokens: int, selective: bool
) -> None:
    async with served(selective=selective) as ask:
        plain = ChatCompletion.model_validate_json(await ask(asked, logprobs=True))
        message = plain.choices[0].message
        assert (getattr(message, "reasoning_content", None), message.content) == (reasoning, content)
        assert plain.usage is not None
        assert plain.usage.completion_tokens == len(ANSWERS[asked]) + 1
        details = plain.usage.completion_tokens_details
        assert (details.reasoning_tokens if details else 0) == tokens
        told = plain.choices[0].logprobs.content or [] if plain.choices[0].logprobs else []
        assert b"".join(bytes(t.bytes or []) for t in told).decode() == content

        *events, _, _ = (await ask(asked, stream=True, stream_options={"include_usage": True})).strip().split("\n\n")
        chunks = [ChatCompletionChunk.model_validate_json(e.removeprefix("data: ")) for e in events]
        assert chunks[-1].usage == plain.usage
        deltas = [json.loads(e.removeprefix("data: "))["choices"][0]["delta"] for e in events[:-1]]
        kinds = [kind for d in deltas for kind in ("reasoning_content", "content") if d.get(kind)]
        assert kinds == sorted(kinds, reverse=True), "all of the thinking comes before the answer"
        for kind, whole in (("reasoning_content", reasoning), ("content", content)):
            assert "".join(d.get(kind) or "" for d in deltas) == (whole or "")


async def test_a_stop_string_ends_the_thinking_too() -> None:
    async with served() as ask:
        message = json.loads(await ask("thinks", stop="seven"))["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Six times", "")
