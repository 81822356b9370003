"""Tools as text: what a student reads and writes, and what is made of it again."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.models.tool_text import CLOSE, OPEN, Call, Reader, Untellable, message_of, spelt, spelt_answer

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_conversation_with_tools_is_plain_messages() -> None:
    told = spelt(
        [
            {"role": "developer", "content": "Help."},
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": None, "tool_calls": [call("look", '{"id":"7"}'), call("look", "")]},
            {"role": "tool", "tool_call_id": "c1", "content": "here"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "nowhere"}]},
        ],
        [TOOL],
    )
    assert [m["role"] for m in told] == ["system", "user", "assistant", "user"]
    assert told[0]["content"].startswith(f"Help.\n\nTools:\n<tools>\n{json.dumps(TOOL)}\n</tools>\n")
    assert told[2]["content"] == (
        '<tool_call>\n{"name": "look", "arguments": {"id": "7"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    )
    assert told[3]["content"] == ("<tool_response>\nhere\n</tool_response>\n<tool_response>\nnowhere\n</tool_response>")


def test_without_a_system_message_the_tools_get_one_of_their_own() -> None:
    told = spelt([{"role": "user", "content": "hi"}], [TOOL])
    assert [m["role"] for m in told] == ["system", "user"]
    assert told[0]["content"].startswith("Tools:")
    assert spelt([{"role": "user", "content": "hi"}]) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [call("look", "no JSON")]}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [call("look", "[1]")]}, "messages[0].tool_calls"),
        ({"role": "tool", "content": None}, "messages[0].content"),
        ({"role": "assistant", "function_call": {"name": "x"}}, "messages[0]"),
    ],
)
def test_what_has_no_text_is_refused_by_its_place(message: dict[str, Any], name: str) -> None:
    with pytest.raises(Untellable) as caught:
        spelt([message])
    assert caught.value.name == name


SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
ARGUMENTS = st.dictionaries(st.text(max_size=4), SCALAR | st.lists(SCALAR, max_size=2), max_size=2)
CALLS = st.lists(st.tuples(st.text(min_size=1, max_size=6), ARGUMENTS), max_size=3)


@given(text=st.text("ab <tool_c>\n{}", max_size=12).filter(lambda t: OPEN not in t), calls=CALLS)
def test_what_was_spelt_is_read_again(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    calls = [c for c in calls if CLOSE not in json.dumps(c, ensure_ascii=False)]
    text = text.strip()
    listed = [call(name, json.dumps(arguments)) for name, arguments in calls]
    read = message_of(spelt_answer({"role": "assistant", "content": text, "tool_calls": listed}))
    assert (read["content"] or "") == text
    found = [c["function"] for c in read.get("tool_calls", ())]
    assert [(f["name"], json.loads(f["arguments"])) for f in found] == calls


PIECES = st.lists(
    st.sampled_from([OPEN, CLOSE, '\n{"name": "look", "arguments": {}}\n', "<tool", "_call>", " ", "\n", "so", "{"]),
    max_size=9,
)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 60), max_size=8))
def test_how_an_answer_is_cut_into_pieces_changes_nothing(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    assert _read([text]) == _read([text[a:b] for a, b in pairwise(edges)])


def _read(pieces: list[str]) -> list[str | Call]:
    reader = Reader()
    found = [part for piece in pieces for part in reader.feed(piece)] + reader.end()
    joined: list[str | Call] = []
    for part in found:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    "text",
    [
        f"{OPEN}look{CLOSE}",
        f'{OPEN}{{"name": "look"}}{CLOSE}',
        f'{OPEN}{{"name": "look", "arguments": "x"}}{CLOSE}',
        f'{OPEN}{{"name": "look", "arguments": {{}}}}',
        "a < b",
        " \n",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert message_of(text) == {"role": "assistant", "content": text}


def test_text_before_a_call_is_shown_before_the_call_is_whole() -> None:
    reader = Reader()
    assert reader.feed("Let me look.\n<tool_call>\n{") == ["Let me look."]
    assert reader.feed('"name": "look", "arguments": {"a": 1}}\n</tool') == []
    assert reader.feed("_call>") == [Call("look", '{"a": 1}')]
    assert reader.end() == []
