"""Which requests a student takes, and how the others are refused."""

import json
from typing import Any

import pytest

from gateway.engines.chat import read
from gateway.engines.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "any", "messages": HELLO, **fields}).encode()


def test_openais_defaults_are_ours() -> None:
    asked = read(body())
    assert (asked.options.temperature, asked.options.top_p, asked.options.max_tokens) == (1.0, 1.0, None)
    assert (asked.options.seed, asked.options.stop, asked.options.top_logprobs) == (None, (), None)
    assert not asked.stream
    assert not asked.usage


def test_text_parts_are_joined_and_the_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = read(body(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]))
    assert asked.messages == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "ab"}]


def test_fields_that_ask_for_nothing_are_taken() -> None:
    neutral = {
        "n": 1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {},
        "audio": None, "modalities": ["text"], "frequency_penalty": 0, "presence_penalty": 0.0, "user": "u",
        "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "parallel_tool_calls": True,
        "stream_options": None, "invented": [1],
    }  # fmt: skip
    assert read(body(**neutral)).messages == HELLO


def test_the_smaller_of_both_token_limits_holds() -> None:
    assert read(body(max_tokens=9, max_completion_tokens=7)).options.max_tokens == 7


def test_stream_options_and_logprobs_are_read() -> None:
    asked = read(body(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=3, stop="x"))
    assert asked.usage
    assert asked.options.top_logprobs == 3
    assert asked.options.stop == ("x",)
    assert read(body(logprobs=True)).options.top_logprobs == 0
    assert read(body(logprobs=False, top_logprobs=0)).options.top_logprobs is None


def test_the_form_that_is_asked_for_is_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
    assert json.loads(read(body(response_format=form)).options.schema) == {"type": "array"}
    assert json.loads(read(body(response_format={"type": "json_object"})).options.schema) == {"type": "object"}
    assert read(body(response_format={"type": "text"})).options.schema == ""
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(InvalidRequest, match="response_format is not supported together with tools"):
        read(body(response_format=form, tools=tools), tools=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2), ("n", True), ("tools", [{"type": "function"}]), ("functions", [{}]), ("tool_choice", "required"),
        ("response_format", "json"), ("response_format", {"type": "json_schema"}), ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"title": "x" * 65_536}}}),
        ("logit_bias", {"5": 1}), ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}), ("prediction", {}),
        ("web_search_options", {}), ("frequency_penalty", 0.5), ("presence_penalty", -1), ("temperature", 2.1),
        ("temperature", "hot"), ("temperature", True), ("top_p", -0.1), ("max_tokens", 0), ("max_tokens", 1.5),
        ("max_completion_tokens", -3), ("seed", "x"), ("seed", 2**64), ("stop", ""), ("stop", ["a", 1]),
        ("stop", ["a"] * 17), ("top_logprobs", 2), ("logprobs", 1), ("stream", "yes"), ("messages", []),
        ("messages", None), ("messages", "hello"), ("stream_options", {"include_usage": True}),
    ],
)  # fmt: skip
def test_what_a_student_cannot_do_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"^{name} ") as caught:
        read(body(**{name: value}))
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("hello", "messages[0]"),
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": ["user"], "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content"),
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, "messages[0]"),
    ],
)
def test_a_message_that_is_not_text_is_refused_by_its_place(message: Any, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(messages=[message]))
    assert caught.value.param == name


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        read(data)


TOOLS = [{"type": "function", "function": {"name": "look"}}]


def test_a_version_that_has_learnt_tools_reads_them_as_text() -> None:
    called = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}]}
    asked = read(body(messages=[*HELLO, called, {"role": "tool", "content": "x"}], tools=TOOLS), tools=True)
    assert asked.tools
    assert [m["role"] for m in asked.messages] == ["system", "user", "assistant", "user"]
    refused = read(body(tools=TOOLS, tool_choice="none"), tools=True)
    assert (refused.tools, refused.messages) == (False, HELLO)
    assert not read(body(), tools=True).tools


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": "look"}, "tools"),
        ({"tools": TOOLS, "logprobs": True}, "logprobs"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ],
)
def test_what_is_asked_of_tools_and_cannot_be_done_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(**fields), tools=True)
    assert caught.value.param == name
