"""A student learns to call tools, from nothing: the teacher labels scenarios with tools, a tiny model is really
trained on them, and calls the right tool through the real engine and gateway, asked by the real openai client."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import tiny_model
import yaml
from aiohttp import web
from loopback_teacher import teaching

from collector import open_interactions, socket_path
from exporters.models.tool_text import FORM, spelt, spelt_answer
from retort.demo.retort_process import RetortProcess
from retort.demo.settings import free_ports
from router import Stage, open_registry, parse

pytestmark = [pytest.mark.e2e, pytest.mark.quiet, pytest.mark.train, pytest.mark.timeout(600)]

CONVERSATIONS = 220
FIRST = 1000  # of the questions: all have numbers of as many digits
SYSTEM = "Call a tool."


def function(name: str, argument: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [function("paint", "colour"), function("find", "place")]


def question(number: int) -> str:
    draw = random.Random(number)
    wanted = draw.choice(("paint red", "paint green", "paint blue", "find garden", "find street", "find market"))
    return f"{number}: a {draw.choice(tiny_model.THINGS)}, {wanted}"


def called(text: str) -> tuple[str, dict[str, str]]:
    """The right tool, and its arguments."""
    name, value = text.split()[-2:]
    return name, {"paint": {"colour": value}, "find": {"place": value}}[name]


class Teacher:
    """Calls the right tool, says `Done.` to its result, and plays the user and the system behind the tools."""

    def __init__(self) -> None:
        self.users = 0

    async def answer(self, request: web.Request) -> web.Response:
        messages = (await request.json())["messages"]
        begin, last = messages[0]["content"], messages[-1]
        said: dict[str, Any] = {"role": "assistant", "content": "Done."}
        if begin.startswith("You play a person"):
            self.users += 1
            said["content"] = question(FIRST + self.users - 1)
        elif begin.startswith("You stand in for the system"):
            said["content"] = '{"ok": true}'
        elif last["role"] == "user":
            said = answer_with_call(last["content"])
        reason = "tool_calls" if "tool_calls" in said else "stop"
        choice = {"index": 0, "message": said, "finish_reason": reason}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return web.json_response({"model": "m", "choices": [choice], "usage": usage})


def answer_with_call(text: str) -> dict[str, Any]:
    name, arguments = called(text)
    made = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": made}]}


def build_base(folder: Path) -> Path:
    """The tiny model, with a tokenizer that knows how tools are written."""
    texts = []
    for n in range(FIRST, FIRST + 20):
        user = {"role": "user", "content": question(n)}
        plain = spelt([{"role": "system", "content": SYSTEM}, user, {"role": "tool", "content": '{"ok": true}'}], TOOLS)
        texts.append("\n".join([m["content"] for m in plain] + [spelt_answer(answer_with_call(question(n)))]))
    return tiny_model.build(folder, more=texts)


class Shop:
    """One `retort up` with its teacher and client."""

    def __init__(self, folder: Path, teacher: int) -> None:
        gateway, engine = free_ports(2)
        self.file = folder / "retort.yaml"
        route = {
            "claims": ["m"],
            "teachers": ["up/m"],
            "student": {"base": str(build_base(folder / "base")), "recipe": "full"},
            "quality": {"score": [{"score": "tool_calls", "weight": 1}, {"score": "token_f1", "weight": 1}]},
            "rollout": {"holdback": 0.0},
            "retrain": {"min_new_examples": 10**6, "every": "0s", "learning_rate": 2e-3, "epochs": 6, "batch_size": 8},
        }
        config = {
            "state": str(folder / "state"),
            "listen": f"127.0.0.1:{gateway}",
            "upstreams": {
                "up": {"base_url": f"http://127.0.0.1:{teacher}/v1", "api_key": "k", "distillation_allowed": True}
            },
            "engines": {"local": {"listen": f"127.0.0.1:{engine}", "threads": 1}},
            "routes": {"shop": route, "labels": {"teachers": ["up/m"], "capture": {"rate": 0}}},
        }
        self.file.write_text(yaml.safe_dump(config))
        self.config = parse(self.file.read_text(), {})
        self.retort = RetortProcess(self.file, f"http://127.0.0.1:{gateway}", folder / "retort.log")
        self.client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway}/v1", api_key="k", max_retries=0)

    async def run(self, *arguments: str) -> str:
        status, said = await self.retort.command(*arguments)
        assert status == 0, said
        return said


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    async with teaching(Teacher().answer) as port:
        made = await asyncio.to_thread(Shop, tmp_path, port)
        await made.retort.start()
        await until(socket_path(made.config.state).exists)
        yield made
        await made.client.close()
        await made.retort.stop()


async def test_a_student_learns_to_call_tools_from_scenarios_and_serves_them(shop: Shop, tmp_path: Path) -> None:
    scenarios = tmp_path / "scenarios.yaml"
    made = {"system": SYSTEM, "turns": [1, 1], "tools": TOOLS, "categories": {"things": CONVERSATIONS}}
    scenarios.write_text(yaml.safe_dump(made))
    await shop.run("bootstrap", "shop", str(scenarios), "--yes", "--ask", "labels")
    with open_interactions(shop.config) as interactions:
        assert len(list(interactions.of("shop"))) == 2 * CONVERSATIONS
    await shop.run("retrain", "shop", "--override-gate", "a test of tools")
    registry = open_registry(shop.config.registry)
    (version,) = registry.versions("shop")
    assert version.tools == FORM
    await until(lambda: version.id in registry.snapshot().tools)
    await shop.run("promote", "shop", version.id, "--why", "a test of tools")
    await until(lambda: registry.version(version.id).stage is Stage.LIVE)
    registry.close()
    async with asyncio.timeout(60):
        while await served_by(shop) != version.id:  # noqa: ASYNC110 - the gateway reads the registry once a second
            await asyncio.sleep(0.2)
    unseen = range(FIRST + CONVERSATIONS, FIRST + CONVERSATIONS + 20)
    assert sum([await asked(shop, question(number), version.id) for number in unseen]) >= 14


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - it is another process that is waited for
            await asyncio.sleep(0.1)


async def served_by(shop: Shop) -> str:
    messages: Any = [{"role": "user", "content": question(1)}]
    raw = await shop.client.chat.completions.with_raw_response.create(
        model="m", messages=messages, tools=TOOLS, max_tokens=1
    )
    return str(raw.headers["x-retort-served-by"])


async def asked(shop: Shop, text: str, version: str) -> bool:
    """Ask the student plainly and as a stream, and give it the result; whether it called the right tool."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    fields: dict[str, Any] = {"model": "m", "tools": TOOLS, "temperature": 0, "max_tokens": 60}
    raw = await shop.client.chat.completions.with_raw_response.create(messages=messages, **fields)
    assert raw.headers["x-retort-served-by"] == version
    choice = raw.parse().choices[0]
    stream = await shop.client.chat.completions.create(messages=messages, stream=True, **fields)
    chunks = [chunk.choices[0] async for chunk in stream if chunk.choices]
    streamed = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    calls = choice.message.tool_calls or []
    assert [c.function.model_dump() for c in streamed if c.function] == [c.function.model_dump() for c in calls]
    assert "".join(c.delta.content or "" for c in chunks) == (choice.message.content or "")
    assert chunks[-1].finish_reason == choice.finish_reason
    if [(c.function.name, json.loads(c.function.arguments)) for c in calls] != [called(text)]:
        return False
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert calls[0].id.startswith("call_")
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": '{"ok": true}'}
    messages += [choice.message.model_dump(exclude_none=True), result]
    done = await shop.client.chat.completions.create(messages=messages, **fields)
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("Done.", "stop")
    return True
