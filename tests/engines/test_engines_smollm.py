"""The real SmolLM2 behind the engine, as int8."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_fakes import FakeCollector, FakeRegistry, until, version
from openai import AsyncOpenAI

from collector import socket_path
from exporters.models import GenAIGenerator, Manifest, Store, record_golden, to_onnx
from gateway.engines.agent import Seams, run
from gateway.engines.genai import GenAIRuntime
from retrainer.base_models import find
from router import Events, parse

pytestmark = pytest.mark.smollm

CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Write one sentence about the sea."}],
    [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What colour is the sky?"}],
    [
        {"role": "user", "content": 'naïve “quotes” 日本語 😀\n\ttab  {"a": 12345}'},
        {"role": "assistant", "content": "  Yes. "},
        {"role": "user", "content": "<b>and</b> then? 'it's' <|im_end|>"},
    ],
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find("SmolLM2-135M-Instruct", tmp_path_factory.mktemp("smollm")).folder


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm") / "int8"
    folder.mkdir()
    to_onnx(base, folder, quantization="int8", log=folder.parent / "export.log")
    return folder


def test_prompts_become_the_tokens_that_transformers_makes(base: Path, exported: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    runtime = GenAIRuntime(exported, threads=2)
    for messages in CONVERSATIONS:
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert runtime.encode(messages) == list(expected)


@pytest.fixture
async def client(exported: Path, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    """An openai client of the version `smol`, which the whole agent serves, golden answers checked."""
    store, name = Store(tmp_path / "artefacts"), "smol"
    staging = store.staging(name)
    for file in exported.iterdir():
        (staging / file.name).hardlink_to(file)
    golden = record_golden(GenAIGenerator(exported), CONVERSATIONS, max_new_tokens=24, base={})
    manifest = {
        "id": name, "route": "support", "kind": "chat", "runtime": "onnxruntime-genai", "base": "SmolLM2",
        "base_revision": "0", "quantization": "int8", "created_at": 1.0, "files": {}, "golden": golden,
    }  # fmt: skip
    store.add(staging, msgspec.convert(manifest, Manifest))
    config = parse(
        f"state: {tmp_path / 'state'}\nartefacts: {tmp_path / 'artefacts'}\n"
        "upstreams: {up: {base_url: 'http://127.0.0.1:9/v1'}}\nengines: {local: {}}\n"
        "routes: {support: {teachers: [up/big]}}\n",
        {},
    )
    registry, stop = FakeRegistry(), asyncio.Event()
    registry.set(version(name))
    seams = Seams(open_registry=lambda url: registry)  # type: ignore[arg-type, return-value]
    async with FakeCollector(socket_path(config.state)):
        task = asyncio.create_task(run(config, name="local", events=Events(), stop=stop, seams=seams))
        await until(lambda: name in registry.endpoints, seconds=120)
        async with AsyncOpenAI(base_url=registry.endpoints[name], api_key="none") as openai:
            yield openai
        stop.set()
        await task


async def test_the_openai_client_gets_real_answers_plain_and_streaming(client: AsyncOpenAI, base: Path) -> None:
    from transformers import AutoTokenizer

    asked: dict[str, Any] = {"model": "smol", "messages": CONVERSATIONS[0], "temperature": 0, "max_tokens": 40}
    plain = await client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    text = plain.choices[0].message.content or ""
    assert "sea" in text.lower()
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert plain.usage is not None
    expected = tokenizer.apply_chat_template(CONVERSATIONS[0], add_generation_prompt=True, return_dict=False)
    assert plain.usage.prompt_tokens == len(expected)
    assert plain.usage.completion_tokens == len(tokenizer.encode(text)) + 1  # and the end token
    logprobs = plain.choices[0].logprobs
    assert logprobs is not None
    assert "".join(c.token for c in logprobs.content or []) == text

    streamed, usage = "", None
    async for chunk in await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert streamed == text
    assert usage == plain.usage
    stopped = await client.chat.completions.create(**asked, stop="sea")
    assert stopped.choices[0].message.content == text.partition("sea")[0]
    assert [m.id async for m in client.models.list()] == ["smol"]
