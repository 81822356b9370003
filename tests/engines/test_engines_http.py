"""A real worker with a tiny model, over HTTP."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from engine_fakes import Served, Tiny, until
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.engines.measured import Measured
from router import Events

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "system", "content": "Name the colour as JSON."}, {"role": "user", "content": "7: a red car"}]

# Greedy, the tiny model runs on to its context's end.
LONG: dict[str, Any] = {"max_tokens": None, "messages": [{"role": "user", "content": "long"}]}


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "ignored", "messages": MESSAGES, "temperature": 0, "max_tokens": 24, **fields}


async def complete(served: Served, **fields: Any) -> dict[str, Any]:
    response = await served.post(ask(**fields))
    assert response.status == 200, await response.text()
    return dict(await response.json())


async def events_of(response: aiohttp.ClientResponse) -> list[str]:
    return (await response.text()).removesuffix("\n\n").split("\n\n")


def reference(tiny: Tiny, answer: list[int] | None = None, *, most: int = 24) -> tuple[list[int], Any, list[int]]:
    """torch's greedy answer, log probabilities [tokens, vocabulary] and the prompt's ids; of `answer`, if given."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.dense)
    model = AutoModelForCausalLM.from_pretrained(tiny.dense, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(most):
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
            if token == tokenizer.eos_token_id:
                break
        rows = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return ids[len(prompt) :], rows.numpy(), list(prompt)


async def test_a_greedy_answer_its_logprobs_and_its_usage_are_what_torch_computes(served: Served, tiny: Tiny) -> None:
    from transformers import AutoTokenizer

    tokens, rows, prompt = reference(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny.dense)
    for _ in range(2):  # the second time with the prompt in the cache
        response = await served.post(ask(logprobs=True, top_logprobs=5))
        body = await response.json()
        answer = ChatCompletion.model_validate(body, strict=True)
        choice = answer.choices[0]
        assert choice.message.content == tokenizer.decode(tokens, skip_special_tokens=True)
        assert choice.finish_reason == "length"
        assert answer.model == "v1"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(tokens))
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        expected = rows[np.arange(len(tokens)), tokens]
        assert [c.logprob for c in content] == pytest.approx(expected.tolist(), abs=1e-3)
        for c, row in zip(content, rows, strict=True):
            assert [a.logprob for a in c.top_logprobs] == pytest.approx(np.sort(row)[::-1][:5].tolist(), abs=1e-3)
            assert c.top_logprobs[0].token == c.token
        joined = b"".join(bytes(c.bytes or []) for c in content)
        assert joined.decode("utf-8", "replace") == choice.message.content
        confidence = float(response.headers["x-retort-confidence"])
        assert confidence == pytest.approx(float(np.exp(expected.mean())), abs=2e-3)


async def test_a_stream_says_the_same_as_a_plain_answer_in_openais_chunks(served: Served) -> None:
    plain = await complete(served, logprobs=True, top_logprobs=2)
    response = await served.post(
        ask(stream=True, logprobs=True, top_logprobs=2, stream_options={"include_usage": True})
    )
    assert response.headers["content-type"] == "text/event-stream"
    *events, comment, done = await events_of(response)
    assert done == "data: [DONE]"
    assert comment.startswith(": retort-confidence 0.")
    chunks = [ChatCompletionChunk.model_validate_json(e.removeprefix("data: "), strict=True) for e in events]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump(exclude_none=True) == plain["usage"]
    assert chunks[-2].choices[0].finish_reason == plain["choices"][0]["finish_reason"]
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert text == plain["choices"][0]["message"]["content"]
    streamed = [t for c in chunks[:-1] if c.choices[0].logprobs for t in c.choices[0].logprobs.content or []]
    assert [t.model_dump() for t in streamed] == plain["choices"][0]["logprobs"]["content"]
    assert len({c.id for c in chunks}) == 1
    assert all("usage" in json.loads(e.removeprefix("data: ")) for e in events)


async def test_a_stream_without_stream_options_has_no_usage(served: Served) -> None:
    events = await events_of(await served.post(ask(stream=True)))
    assert all("usage" not in json.loads(e.removeprefix("data: ")) for e in events[:-2])


async def test_a_stop_string_cuts_the_answer_before_itself_streaming_or_not(served: Served) -> None:
    whole = (await complete(served))["choices"][0]["message"]["content"]
    stop = whole[7:12]
    expected = whole[: whole.find(stop)]
    plain = await complete(served, stop=["never comes", stop])
    assert plain["choices"][0]["message"]["content"] == expected
    assert plain["choices"][0]["finish_reason"] == "stop"
    *events, _, _ = await events_of(await served.post(ask(stream=True, stop=stop)))
    deltas = [json.loads(e.removeprefix("data: "))["choices"][0]["delta"] for e in events]
    assert "".join(d.get("content", "") for d in deltas) == expected


async def test_a_seed_repeats_an_answer_whatever_was_asked_in_between(served: Served) -> None:
    async def drawn(seed: int | None) -> str:
        body = await complete(served, temperature=1.3, top_p=0.95, seed=seed)
        return str(body["choices"][0]["message"]["content"])

    first = await drawn(11)
    await complete(served, messages=[{"role": "user", "content": "something else"}])
    assert await drawn(11) == first
    assert await drawn(12) != first
    assert await drawn(None) != await drawn(None)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("stream", [True, False])
async def test_clients_that_leave_end_their_decoding(served: Served, stream: bool) -> None:
    """Four answers to the context's end are seconds of work; the worker must be at rest long before."""
    texts = [f"a long story, {n}" for n in range(4)]
    asked = [ask(**LONG | {"messages": [{"role": "user", "content": t}]}, stream=stream) for t in texts]
    tasks = [asyncio.create_task(served.post(body)) for body in asked]
    await until(lambda: served.hosted.inside == 4)
    await asyncio.sleep(0.05)
    for task in tasks:
        if task.done():  # a stream that has begun
            (await task).close()
        else:
            task.cancel()
    await until(lambda: served.hosted.inside == 0, seconds=1.0)
    assert [e["outcome"] for e in served.emitted if e["name"] == "engine.request"] == ["cancelled"] * 4
    await asyncio.sleep(0.1)
    before = cpu_seconds(served.hosted.child.pid)
    await asyncio.sleep(0.2)
    assert cpu_seconds(served.hosted.child.pid) - before <= 0.03
    assert (await complete(served))["usage"]["completion_tokens"] > 0


async def test_requests_beyond_the_queue_are_told_to_come_back(served: Served) -> None:
    long = ask(**LONG)
    tasks = [asyncio.create_task(served.post(long)) for _ in range(4)]
    await until(lambda: served.hosted.inside == 4)
    refused = await served.post(ask())
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert (await refused.json())["error"]["code"] == "queue_full"
    for task in tasks:
        assert (await task).status == 200


async def test_requests_at_once_get_what_they_would_get_alone(served: Served) -> None:
    texts = [f"{n}: a blue house" for n in range(4)]

    async def answer(text: str) -> str:
        body = await complete(served, messages=[{"role": "user", "content": text}], max_tokens=60)
        return str(body["choices"][0]["message"]["content"])

    alone = [await answer(t) for t in texts]
    assert await asyncio.gather(*map(answer, texts)) == alone


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "messages"),
    ],
)
async def test_what_cannot_be_answered_is_a_400_in_openais_shape(
    served: Served, body: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        response = await served.post(ask(stream=stream, **body))
        assert response.status == 400
        error = (await response.json())["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param
    assert served.emitted[-1]["outcome"] == error["code"]


async def test_a_body_that_is_no_json_is_a_400(served: Served) -> None:
    response = await served.post(b"{not json", headers={"content-type": "application/json"})
    assert response.status == 400
    assert "not JSON" in (await response.json())["error"]["message"]


async def test_an_unknown_version_and_an_unknown_path_are_404s_in_openais_shape(served: Served) -> None:
    for url in ("/v2/v1/chat/completions", "/v1/v1/completions"):
        response = await served.client.post(served.url.rsplit("/", 1)[0] + url, json=ask())
        assert response.status == 404
        assert "error" in await response.json()


async def test_models_and_health_name_the_version(served: Served) -> None:
    response = await served.client.get(served.url + "/v1/models")
    assert [m["id"] for m in (await response.json())["data"]] == ["v1"]
    response = await served.client.get(served.url.rsplit("/versions", 1)[0] + "/healthz")
    assert await response.json() == {"status": "ok", "versions": ["v1"]}


async def test_a_killed_worker_is_a_502_before_the_first_byte_and_an_error_event_after_it(served: Served) -> None:
    long = ask(**LONG)
    streaming = await served.post({**long, "stream": True})
    await streaming.content.readline()
    waiting = asyncio.create_task(served.post(long))
    await until(lambda: served.hosted.inside == 2)
    os.kill(served.hosted.child.pid, signal.SIGKILL)
    refused = await waiting
    assert refused.status == 502
    assert (await refused.json())["error"]["code"] == "worker_gone"
    last = (await events_of(streaming))[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "worker_gone"
    assert (await served.post(ask())).status == 502


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError("ours"), "internal_error"), (ConnectionResetError(), "cancelled")]
)
async def test_a_fault_of_the_engine_is_told_from_a_client_that_left(
    served: Served, error: Exception, outcome: str
) -> None:
    told: list[dict[str, Any]] = []
    events = Events()
    events.subscribe(lambda name, fields: told.append({"name": name, **fields}))
    measured = Measured(served.hosted, events, operation="chat")
    with pytest.raises(type(error)), measured.counted("generate"):
        raise error
    assert [event["outcome"] for event in told if event["name"] == "engine.request"] == [outcome]


async def test_every_request_is_measured(served: Served) -> None:
    body = await complete(served)
    event = served.emitted[-1]
    assert event["name"] == "engine.request"
    assert (event["version"], event["operation"], event["outcome"]) == ("v1", "chat", "ok")
    assert event["prompt_tokens"] == body["usage"]["prompt_tokens"]
    assert event["completion_tokens"] == body["usage"]["completion_tokens"]
    assert 0 <= event["queue_seconds"] <= event["ttft_seconds"] <= event["seconds"] < 30
    assert 0 <= sum(event["gaps"]) <= event["seconds"]
    counts = [(e["waiting"], e["decoding"]) for e in served.emitted if e["name"] == "engine.inside"]
    assert counts == [(1, 0), (0, 1), (0, 0)]
