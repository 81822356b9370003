"""The unchanged `openai` client in front of the gateway, a fake OpenAI behind it."""

from collections.abc import AsyncIterator

import openai
import pytest
from gateway_fakes import ERROR_EVENT, ROLE, STREAM, FakeUpstream, Running, error, event, gateway, settings, stream

pytestmark = pytest.mark.e2e

HI: list = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def running(teacher: FakeUpstream) -> AsyncIterator[Running]:
    async with gateway(settings(teacher.url, timeout="1s")) as served:
        yield served


@pytest.fixture
async def client(running: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=running.url, api_key="sk-client", max_retries=0) as made:
        yield made


async def test_a_plain_completion_comes_back_typed(client: openai.AsyncOpenAI, teacher: FakeUpstream) -> None:
    got = await client.chat.completions.create(model="gpt-4o", messages=HI, extra_body={"new_field": {"a": 1}})
    assert got.choices[0].message.content == "hello"
    assert got.usage is not None
    assert got.usage.total_tokens == 7
    assert teacher.asked[0].json["new_field"] == {"a": 1}


async def test_a_stream_comes_back_chunk_by_chunk(client: openai.AsyncOpenAI, teacher: FakeUpstream) -> None:
    teacher.will(stream(STREAM))
    chunks = [c async for c in await client.chat.completions.create(model="support", messages=HI, stream=True)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "hello"
    assert teacher.asked[0].json["model"] == "gpt-4o"


async def test_a_stream_that_breaks_raises_in_the_client(client: openai.AsyncOpenAI, teacher: FakeUpstream) -> None:
    for behaviour in (
        stream([ROLE, event({"content": "hel"})], end="cut"),
        stream([ROLE, event({"content": "hel"})[:-20]], end="cut"),
        stream([ROLE, event({"content": "hel"}), event({"content": "lo"})[:40]]),
        stream([ROLE, event({"content": "hel"}), ERROR_EVENT]),
    ):
        teacher.will(behaviour)
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True):
                pass


async def test_errors_raise_the_clients_own_exceptions(client: openai.AsyncOpenAI, teacher: FakeUpstream) -> None:
    with pytest.raises(openai.NotFoundError, match="known are: gpt-4o, support"):
        await client.chat.completions.create(model="gpt-9", messages=HI)
    for status, kind in (
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ):
        teacher.will(error(status))
        with pytest.raises(kind):
            await client.chat.completions.create(model="gpt-4o", messages=HI)


async def test_the_models_are_the_routes_and_what_they_claim(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["gpt-4o", "support"]
