"""What the client sends and gets, byte for byte, and which headers go either way."""

import gzip
import json

import pytest
from gateway_fakes import (
    DONE,
    REQUEST,
    STREAM,
    FakeUpstream,
    completion,
    error,
    event,
    gateway,
    plain,
    reply,
    settings,
    stream,
)


async def test_the_bodies_pass_unchanged_in_both_directions(teacher: FakeUpstream) -> None:
    body = b'{ "model" :"gpt-4o", "unknown_field": [1.50, null],\n "messages":[{"role":"user","content":"h\\u00e9"}] }'
    async with gateway(settings(teacher.url)) as running, running.post(body) as got:
        assert got.status == 200
        assert await got.read() == completion("hello")
    assert teacher.asked[0].body == body
    assert teacher.asked[0].path == "/v1/chat/completions"


async def test_a_stream_passes_unchanged_and_as_an_event_stream(teacher: FakeUpstream) -> None:
    teacher.will(stream(STREAM))
    async with gateway(settings(teacher.url)) as running, running.post({**REQUEST, "stream": True}) as got:
        assert got.headers["content-type"] == "text/event-stream"
        assert await got.read() == b"".join(STREAM)


async def test_tools_and_tool_call_deltas_pass_in_their_order(teacher: FakeUpstream) -> None:
    deltas = [
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b"},{"index":0,"id":"a"}]}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n',
        DONE,
    ]
    teacher.will(stream(deltas))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]
    async with gateway(settings(teacher.url)) as running:
        async with running.post({**REQUEST, "stream": True, "tools": tools}) as got:
            assert await got.read() == b"".join(deltas)
        exchange, _ = await running.sender.exchange()
    assert teacher.asked[0].json["tools"] == tools
    assert exchange.decision.eligible is False


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_a_teachers_thinking_passes_as_it_comes_plain_and_streamed(teacher: FakeUpstream, field: str) -> None:
    message = {"role": "assistant", "content": "<think>hm</think>42", field: "Six times seven."}
    body = completion("", choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    deltas = [event({"role": "assistant", field: "Six "}), event({field: "times"}), event({"content": "42"}), DONE]
    teacher.will(reply(body), stream(deltas))
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST) as got:
            assert await got.read() == body
        async with running.post({**REQUEST, "stream": True}) as got:
            assert await got.read() == b"".join(deltas)


async def test_a_route_name_becomes_the_teachers_model_and_nothing_else_changes(teacher: FakeUpstream) -> None:
    body = b'{"messages":[{"role":"user","content":"\\"model\\": \\"support\\""}],  "model":"support","n":1}'
    async with gateway(settings(teacher.url)) as running, running.post(body) as got:
        assert got.status == 200
    assert teacher.asked[0].body == body.replace(b'"model":"support"', b'"model":"gpt-4o"')


async def test_the_operators_key_replaces_the_clients(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        got = await running.post(REQUEST, authorization="Bearer client", openai_organization="org-client")
        assert got.status == 200
    assert teacher.asked[0].headers["authorization"] == "Bearer sk-operator"
    assert "openai-organization" not in teacher.asked[0].headers


async def test_passthrough_sends_the_clients_own_key(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url, key="passthrough")) as running:
        got = await running.post(REQUEST, authorization="Bearer client", openai_organization="org-client")
        assert got.status == 200
    assert teacher.asked[0].headers["authorization"] == "Bearer client"
    assert teacher.asked[0].headers["openai-organization"] == "org-client"


async def test_only_known_request_headers_go_on(teacher: FakeUpstream) -> None:
    async with (
        gateway(settings(teacher.url)) as running,
        running.post(REQUEST, cookie="a=b", x_retort_session="s", x_forwarded_for="1.2.3.4", traceparent="t"),
    ):
        pass
    sent = teacher.asked[0].headers
    allowed = {"host", "content-type", "content-length", "accept", "accept-encoding", "authorization", "traceparent"}
    assert set(sent) <= allowed | {"user-agent"}
    assert sent["traceparent"] == "t"


async def test_only_known_response_headers_come_back(teacher: FakeUpstream) -> None:
    hidden = {
        "server": "envoy",
        "via": "10.0.0.1",
        "set-cookie": "a=b",
        "x-upstream-host": "h",
        "openai-organization": "o",
    }
    shown = {"x-request-id": "req_up", "x-ratelimit-remaining-tokens": "9", "openai-processing-ms": "5"}
    teacher.will(plain("hello", headers={**hidden, **shown}))
    async with gateway(settings(teacher.url)) as running, running.post(REQUEST) as got:
        ours = {"x-retort-request-id", "x-retort-served-by"}
        came = {name.lower() for name in got.headers} - {"date"}
        assert came == {"content-type", "content-length", *shown, *ours}
        assert got.headers["x-retort-served-by"] == "teacher"
        assert got.headers["x-request-id"] == "req_up"


async def test_an_encoded_answer_arrives_decoded_with_the_right_length(teacher: FakeUpstream) -> None:
    packed = gzip.compress(completion("hello"))
    teacher.will(reply(packed, headers={"content-encoding": "gzip"}))
    async with gateway(settings(teacher.url)) as running, running.post(REQUEST, accept_encoding="gzip") as got:
        assert "content-encoding" not in got.headers
        assert await got.read() == completion("hello")
    assert teacher.asked[0].headers["accept-encoding"] == "identity"


async def test_a_body_of_five_megabytes_passes_with_its_length(teacher: FakeUpstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (5 << 20)}}
    body = json.dumps({"model": "support", "messages": [{"role": "user", "content": [image]}]}).encode()
    async with gateway(settings(teacher.url)) as running, running.post(body) as got:
        assert got.status == 200
    assert teacher.asked[0].body == body.replace(b'"support"', b'"gpt-4o"')
    assert "transfer-encoding" not in teacher.asked[0].headers


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_teachers_own_refusal_reaches_the_client_as_it_is(
    teacher: FakeUpstream, second: FakeUpstream, status: int
) -> None:
    teacher.will(error(status, "context too long"))
    async with gateway(settings(teacher.url, second=second.url)) as running, running.post(REQUEST) as got:
        assert got.status == status
        assert (await got.json())["error"]["message"] == "context too long"
    assert second.asked == []
