"""Answers are read from their bytes, plain or streamed, and junk is told."""

import json
from typing import Any

import pytest
from collector_fakes import answer, stream
from hypothesis import given
from hypothesis import strategies as st

from collector.parse import Unreadable, completion, request, spelt
from collector.record import TokenLogprob, Usage


def test_a_plain_answer_is_read() -> None:
    got = completion(answer("hi", tool_calls=[{"id": "t"}]))
    assert got.message == {"role": "assistant", "content": "hi", "tool_calls": [{"id": "t"}]}
    assert (got.finish_reason, got.model) == ("stop", "gpt-4o-2024")
    assert got.usage == Usage(prompt_tokens=10, completion_tokens=5)


def test_a_plain_answers_and_a_streams_log_probabilities_are_read() -> None:
    told = [
        {
            "token": "Y",
            "logprob": -0.1,
            "bytes": [89],
            "top_logprobs": [{"token": "Y", "logprob": -0.1, "bytes": [89]}],
        },
        {"token": "es", "logprob": -0.2, "top_logprobs": [{"token": "ep", "logprob": -2.0}]},
    ]
    plain = json.loads(answer("Yes"))
    plain["choices"][0]["logprobs"] = {"content": told}
    expected = (TokenLogprob("Y", -0.1, {"Y": -0.1}), TokenLogprob("es", -0.2, {"ep": -2.0}))
    assert completion(json.dumps(plain).encode()).logprobs == expected
    deltas = [{"delta": {"content": t["token"]}, "logprobs": {"content": [t]}} for t in told]
    body = b"".join(b"data: " + json.dumps({"choices": [d]}).encode() + b"\n\n" for d in deltas)
    assert completion(body).logprobs == expected
    for odd in (None, [], {"content": None}, {"content": [{"token": 1}]}, {"tokens": ["Yes"]}):
        plain["choices"][0]["logprobs"] = odd
        assert completion(json.dumps(plain).encode()).logprobs == ()


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "Six times seven.\n", "content": "42"},
        {"reasoning": "Six times seven.", "reasoning_details": [{"type": "reasoning.text"}], "content": "42"},
        {"reasoning": "Six times seven.", "reasoning_content": "Six times seven.", "content": "42"},
        {"content": "<think>\nSix times seven.\n</think>\n\n42"},
    ],
)
def test_thinking_is_told_apart_from_the_message_plain_and_streamed(message: dict[str, Any]) -> None:
    body = json.dumps({"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}).encode()
    pieces = [
        {name: piece} for name, text in message.items() if isinstance(text, str) for piece in (text[:9], text[9:])
    ]
    deltas = b"".join(b"data: " + json.dumps({"choices": [{"delta": d}]}).encode() + b"\n\n" for d in pieces)
    for said in (completion(body), completion(deltas)):
        assert said.message == {"role": "assistant", "content": "42"}
        assert said.reasoning == "Six times seven."
    assert completion(answer("a </think> b")).reasoning is None


def test_the_log_probabilities_that_are_kept_are_of_the_answer_and_not_of_the_thinking() -> None:
    tokens = ["<think>", "hm", "</think>", "\n\n", "4", "2"]
    body = json.loads(answer("".join(tokens)))
    body["choices"][0]["logprobs"] = {"content": [{"token": t, "logprob": -0.5} for t in tokens]}
    said = completion(json.dumps(body).encode())
    assert [one.token for one in spelt(said)] == ["4", "2"]


@pytest.mark.parametrize("end", [b'data: {"id": "x', b"data: ", b"dat", b": comment", b'data: {"choices": []}'])
def test_what_a_stream_that_broke_off_had_said_is_read(end: bytes) -> None:
    whole = stream("so ", "far")
    said = whole[: whole.index(b"\n\n", whole.index(b"far")) + 2]
    assert completion(said + end).message["content"] == "so far"


@given(st.lists(st.text(), max_size=6))
def test_a_streams_pieces_are_put_together(pieces: list[str]) -> None:
    got = completion(stream(*pieces))
    assert got.message["content"] == "".join(pieces)
    assert (got.finish_reason, got.usage, got.model) == (
        "stop",
        Usage(prompt_tokens=1, completion_tokens=2),
        "gpt-4o-2024",
    )


def test_tool_call_deltas_are_joined_by_index() -> None:
    parts = [
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"y"'}},
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "function": {"arguments": ":2}"}},
    ]
    body = b"".join(
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [p]}}]}).encode() + b"\r\n\r\n"
        for p in parts
    )
    first, second = completion(body).message["tool_calls"]
    assert (first["id"], first["function"]) == ("a", {"name": "f", "arguments": '{"x":1}'})
    assert (second["id"], second["function"]) == ("b", {"name": "g", "arguments": '{"y":2}'})


def test_usage_on_a_chunk_with_choices_counts() -> None:
    body = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
    assert completion(body).usage == Usage(prompt_tokens=3, completion_tokens=4)


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{", b"[]", b'{"choices":[]}', b'{"choices":[{}]}', b"data: {broken\n\n", b"data: [1]\n\n"],
)
def test_junk_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        completion(body)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_otherwise(body: bytes) -> None:
    for read in (completion, request):
        try:
            read(body)
        except Unreadable:
            continue
