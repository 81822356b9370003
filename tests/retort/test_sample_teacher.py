"""The sample teacher speaks OpenAI's protocol, and answers its task from real records."""

import json
from collections import Counter

import openai
import pytest
from aiohttp.test_utils import TestServer

from retort.demo.proxy import spoil
from retort.sample.records import COMMUNITIES, SYSTEM_PROMPT, answer, packages
from retort.sample.teacher import create_app


def test_the_records_are_real_and_cover_every_community() -> None:
    assert len(packages()) == 8000
    counted = Counter(json.loads(p.answer)["community"] for p in packages())
    assert set(counted) == set(COMMUNITIES)
    assert min(counted.values()) > 300
    assert all(answer(p.question) == p.answer for p in packages()[::97])


def test_a_package_that_it_does_not_know_belongs_to_no_community() -> None:
    assert answer("hello") == '{"community": "other"}'


@pytest.mark.e2e
async def test_the_openai_client_gets_answers_plain_and_streamed() -> None:
    async with TestServer(create_app(latency=0.01)) as server:
        client = openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="k", max_retries=0)
        package = next(p for p in packages() if p.section == "haskell")
        asked = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": package.question}]
        plain = await client.chat.completions.create(model="gpt-4o", messages=asked)  # type: ignore[arg-type]
        assert plain.choices[0].message.content == '{"community": "haskell"}'
        assert plain.usage
        assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens
        pieces, usage = [], None
        stream = await client.chat.completions.create(
            model="gpt-4o",
            messages=asked,
            stream=True,
            stream_options={"include_usage": True},  # type: ignore[arg-type]
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            pieces += [c.delta.content or "" for c in chunk.choices]
        assert "".join(pieces) == '{"community": "haskell"}'
        assert usage == plain.usage
        with pytest.raises(openai.BadRequestError, match="no message of the role user"):
            await client.chat.completions.create(model="gpt-4o", messages=[])
        await client.close()


def test_the_proxys_wrong_answer_is_well_formed_and_wrong() -> None:
    for community in COMMUNITIES:
        said = {"choices": [{"message": {"content": json.dumps({"community": community})}}]}
        told = json.loads(json.loads(spoil(json.dumps(said).encode()))["choices"][0]["message"]["content"])
        assert told["community"] in set(COMMUNITIES) - {community}
