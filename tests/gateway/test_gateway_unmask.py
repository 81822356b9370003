"""Originals come back whole, wherever a stream is cut, and nothing else changes."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from gateway_fakes import DONE, ROLE, event
from hypothesis import given
from hypothesis import strategies as st

from gateway.unmask import LONGEST, Originals, Window
from gateway.unmask_stream import UnmaskedStream

PAIRS = {
    "Brandi": "Annegret",
    "Brandi Hansen": "Jo-Ann",
    "Hansen": "O'Neil",
    "Nora": 'Zoë "Zo" \\ Ü\n',
    "nora.362@example.com": "zoe@acme.org",
    "+81 530 8836704": "+49 171 5536624",
    "4537492611229456": "4539148803436467",
    "sk-7Ab3": "sk-9Xy1",
}
ORIGINALS = Originals(PAIRS)
# Whole surrogates, their beginnings, and what may stand beside them.
PIECES = [
    *PAIRS,
    "BRANDI",
    "brandi",
    "Bran",
    "+81 530",
    "Nor",
    "a",
    "x",
    " ",
    ".",
    "_",
    "-",
    "'s",
    "é",
    "5",
    "\\",
    '"',
    "\n",
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def expected(text: str) -> str:
    """By one pattern over the whole text."""
    forms = dict(PAIRS)
    for made, original in PAIRS.items():
        for change in (str.upper, str.lower, lambda word: word[:1].upper() + word[1:], str.title):
            if made != "sk-7Ab3":
                forms.setdefault(change(made), change(original))
    forms["+815308836704"] = "+491715536624"
    any_of = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    pattern = rf"(?:(?<![^\W_])(?=[^\W_])|(?=[^\w\s]))(?:{any_of})(?![^\W_])"
    return re.sub(pattern, lambda found: forms[found[0]], text)


def streamed(pieces: list[str]) -> str:
    window = Window(ORIGINALS)
    return "".join([*map(window.feed, pieces), window.feed("", final=True)])


@given(text=texts.filter(lambda text: text.lstrip()[:1] not in ("{", "[")), places=st.lists(st.integers(0, 200)))
def test_however_a_text_is_cut_it_becomes_the_same(text: str, places: list[int]) -> None:
    assert streamed(cut(text, places)) == ORIGINALS.text(text) == expected(text)


@given(value=st.lists(texts, max_size=4), places=st.lists(st.integers(0, 400)), ascii_only=st.booleans())
def test_however_json_is_cut_it_stays_json_and_each_string_becomes_the_same(
    value: list[str], places: list[int], ascii_only: bool
) -> None:
    back = streamed(cut(json.dumps(value, ensure_ascii=ascii_only), places))
    assert json.loads(back) == [expected(text) for text in value]


@given(
    values=st.lists(st.one_of(texts, st.integers(), st.none(), st.dictionaries(texts, texts, max_size=2)), max_size=4)
)
def test_a_body_stays_json_whose_values_alone_change(values: list[Any]) -> None:
    def back(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: back(inner) for key, inner in value.items()}
        return ORIGINALS.text(value) if isinstance(value, str) else value

    assert json.loads(ORIGINALS.body(json.dumps({"v": values}).encode())) == {"v": list(map(back, values))}


@pytest.mark.parametrize(
    ("said", "back"),
    [
        ("Brandi's", "Annegret's"),
        ("BRANDI and brandi", "ANNEGRET and annegret"),
        ("_Brandi_, **Hansen**", "_Annegret_, **O'Neil**"),
        ("Brandi Hansen", "Jo-Ann"),
        ("Brandis aBrandi Brandi2", "Brandis aBrandi Brandi2"),
        ("Brandié", "Brandié"),
        ("Nora.362@example.com", "Zoe@acme.org"),
        ("+815308836704 or +81 530 88367045", "+491715536624 or +81 530 88367045"),
        ("nora.362@example", 'zoë "zo" \\ ü\n.362@example'),
        ("sk-7Ab3 SK-7AB3", "sk-9Xy1 SK-7AB3"),
        ("", ""),
    ],
)
def test_whole_words_come_back_in_the_form_that_they_are_written_in(said: str, back: str) -> None:
    assert ORIGINALS.text(said) == back
    assert streamed(list(said)) == back


def test_a_body_is_untouched_but_for_what_comes_back_byte_for_byte() -> None:
    untouched = b'{"a" : [ 1.0, -0e3, "x\\u00e9\\/" ],\n "Brandi": null, "Brandi" :  {}}'
    assert ORIGINALS.body(untouched) == untouched
    said = b'{"m" : "\\u0042randi \\u00e9", "b": "x\\u00e9\\/"}'
    assert ORIGINALS.body(said) == '{"m" : "Annegret é", "b": "x\\u00e9\\/"}'.encode()
    assert ORIGINALS.body(b"no Brandi, no JSON") == b"no Annegret, no JSON"
    assert ORIGINALS.body(b"\xff Brandi") == b"\xff Brandi"


def test_a_tools_arguments_stay_json_within_json() -> None:
    arguments = json.dumps({"who": "Nora", "card": 4537492611229456, "mail": "nora.362@example.com"})
    arguments = arguments.replace("@", "\\u0040")
    body = json.dumps({"function": {"arguments": arguments}}).encode()
    back = json.loads(json.loads(ORIGINALS.body(body))["function"]["arguments"])
    assert back == {"who": PAIRS["Nora"], "card": 4539148803436467, "mail": "zoe@acme.org"}


@pytest.mark.parametrize("size", range(1, 8))
def test_an_escape_that_is_cut_in_two_is_still_one(size: int) -> None:
    said = json.dumps(["\nBrandi\tHansen", "éBrandi", "nora.362@example.com\\"]).replace("@", "\\u0040")
    back = streamed([said[at : at + size] for at in range(0, len(said), size)])
    assert json.loads(back) == ["\nAnnegret\tO'Neil", "éBrandi", "zoe@acme.org\\"]


def test_only_what_could_become_a_surrogate_waits_and_never_more_than_the_longest() -> None:
    window = Window(ORIGINALS)
    assert [window.feed(piece) for piece in ("Dear ", "Bra", "nd", "y ", "Brandi", " H", "i")] == [
        "Dear ", "", "", "Brandy ", "", "", "Annegret Hi",
    ]  # fmt: skip
    long = Originals({"k" * LONGEST: "a", "q" * (LONGEST + 1): "b"})
    window = Window(long)
    assert window.feed("k" * (LONGEST - 1)) == ""
    assert window.feed("k") == ""
    assert window.feed("k") == "k" * (LONGEST + 1)
    assert Window(long).feed("q" * (LONGEST + 1)) == "q" * (LONGEST + 1)


def fed(stream: UnmaskedStream, *events: bytes) -> list[bytes]:
    return [stream.feed(one) for one in events]


def contents(events: bytes) -> list[Any]:
    found = [line.removeprefix("data: ") for line in events.decode().splitlines() if line.startswith("data: {")]
    return [choice["delta"] for line in found for choice in json.loads(line)["choices"]]


def test_events_without_a_surrogate_go_on_byte_for_byte() -> None:
    odd = b'event: x\nid: 7\ndata:{"choices" : [ {"delta": {"content": "no one\\u0021"}, "logprobs": 1e-05} ]}\n\n'
    usage = b'data: {"choices": [], "usage": {"total_tokens": 7.0}}\n\n'
    for one in (ROLE, odd, b": ping\n\n", usage, event({}, "stop"), DONE, b"data: nonsense\n\n"):
        assert UnmaskedStream(ORIGINALS).feed(one) == one
    crlf = (odd + DONE).replace(b"\n", b"\r\n")
    assert UnmaskedStream(ORIGINALS).feed(crlf) == crlf


def test_what_is_held_back_comes_before_the_finish_in_a_chunk_like_the_others() -> None:
    stream = UnmaskedStream(ORIGINALS)
    came = fed(stream, event({"content": "I am Brandi"}), event({}, "stop"), DONE)
    assert contents(came[0]) == [{"content": "I am "}]
    held, end = came[1].split(b"\n\n", 1)
    assert json.loads(held.removeprefix(b"data: ")) == {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Annegret"}, "finish_reason": None}],
    }  # fmt: skip
    assert (end, came[2]) == (event({}, "stop"), DONE)


def test_a_stream_without_a_finish_gives_up_what_it_holds_at_its_end() -> None:
    said = event({"content": "Brandi"})
    assert contents(b"".join(fed(UnmaskedStream(ORIGINALS), said, DONE)))[-1] == {"content": "Annegret"}
    stream = UnmaskedStream(ORIGINALS)
    assert contents(stream.feed(said) + stream.end(b""))[-1] == {"content": "Annegret"}
    stream = UnmaskedStream(ORIGINALS)
    assert stream.end(DONE.strip()) == DONE.strip()


def test_texts_of_one_stream_are_told_apart_by_choice_field_and_call() -> None:
    calls = [{"index": 1, "id": "c1", "function": {"name": "f", "arguments": '{"a": "Bra'}},
             {"index": 2, "function": {"arguments": '{"b": "Han'}}]  # fmt: skip
    more = [{"index": 2, "function": {"arguments": 'sen"}'}}, {"index": 1, "function": {"arguments": 'ndi"}'}}]
    chunk: dict[str, Any] = {"x": 1, "choices": [
        {"index": 1, "delta": {"content": "Bran"}},
        {"index": 0, "delta": {"reasoning_content": "Brandi", "content": "Han", "refusal": None}},
    ]}  # fmt: skip
    again = {"choices": [
        {"index": 0, "delta": {"content": "sen", "tool_calls": calls}},
        {"index": 1, "delta": {"content": "di!"}},
    ]}  # fmt: skip
    last = {
        "choices": [
            {"index": n, "delta": {"tool_calls": more} if n == 0 else {}, "finish_reason": "stop"} for n in (0, 1)
        ]
    }
    stream = UnmaskedStream(ORIGINALS)
    found: dict[tuple[int, str, int], str] = {}
    for one in (chunk, again, last):
        back = stream.feed(b"data: " + json.dumps(one).encode() + b"\n\n")
        for line in back.splitlines():
            for choice in json.loads(line.removeprefix(b"data: "))["choices"] if line else ():
                for name, value in choice["delta"].items():
                    if name == "tool_calls":
                        for call in value:
                            key = (choice["index"], "call", call["index"])
                            found[key] = found.get(key, "") + call["function"]["arguments"]
                    elif value is not None:
                        key = (choice["index"], name, 0)
                        found[key] = found.get(key, "") + value
    assert found == {
        (0, "content", 0): "O'Neil", (0, "reasoning_content", 0): "Annegret", (1, "content", 0): "Annegret!",
        (0, "call", 1): '{"a": "Annegret"}', (0, "call", 2): '{"b": "O\'Neil"}',
    }  # fmt: skip


def test_chunks_that_are_alike_but_for_one_text_are_read_in_full_where_they_hold_two() -> None:
    def two(first: str, second: str) -> bytes:
        choices = [{"index": n, "delta": {"content": text}} for n, text in enumerate((first, second))]
        return b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"

    stream = UnmaskedStream(ORIGINALS)
    came = b"".join(fed(stream, two("Bran", "x"), two("Bran", "y"), two("di", "Hansen"), two(" ", "."), DONE))
    texts = contents(came)
    assert "".join(delta["content"] for delta in texts[::2]) == "BranBrandi "
    assert "".join(delta["content"] for delta in texts[1::2]) == "xyHansen."


def test_an_error_in_a_stream_is_turned_back_after_what_was_said() -> None:
    error = b'data: {"error": {"message": "no Brandi here", "code": null}}\n\n'
    came = b"".join(fed(UnmaskedStream(ORIGINALS), event({"content": "Hansen"}), error))
    assert came.index(b"O'Neil") < came.index(b"no Annegret here")


@given(
    text=texts, places=st.lists(st.integers(0, 200)), finish=st.booleans(), key=st.sampled_from(["content", "refusal"])
)
def test_the_deltas_of_a_stream_add_up_to_the_whole_answer(
    text: str, places: list[int], finish: bool, key: str
) -> None:
    stream = UnmaskedStream(ORIGINALS)
    events = [event({key: piece}) for piece in cut(text, places)] + [event({}, "stop")] * finish + [DONE]
    came = b"".join(fed(stream, *events))
    assert "".join(delta.get(key, "") for delta in contents(came)) == ORIGINALS.text(text)
