"""Bytes, characters and stop strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.text import Characters, Stops, Vocabulary

_BYTE_LEVEL = {
    "added_tokens": [
        {"id": 9, "content": "<|end|>", "special": True},
        {"id": 8, "content": "<tool>", "special": False},
    ],
    "model": {"vocab": {"Ġthe": 0, "Ċ": 1, "Ã": 2, "©": 3, "a": 4}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]},
}


def test_a_byte_level_token_has_its_exact_bytes() -> None:
    vocabulary = Vocabulary(_BYTE_LEVEL, lambda ids: pytest.fail("must not ask"))
    assert [vocabulary.raw(i) for i in range(5)] == [b" the", b"\n", b"\xc3", b"\xa9", b"a"]


def test_special_tokens_are_not_shown_and_other_added_ones_are() -> None:
    vocabulary = Vocabulary(_BYTE_LEVEL, lambda ids: "")
    assert vocabulary.shown(9) == b""
    assert vocabulary.raw(9) == b"<|end|>"
    assert vocabulary.shown(8) == b"<tool>"


def test_a_tokenizer_of_another_kind_is_asked_for_each_token() -> None:
    tokenizer = {"model": {"vocab": {"▁the": 0}}, "decoder": {"type": "Metaspace"}}
    vocabulary = Vocabulary(tokenizer, lambda ids: f"<{ids[0]}>")
    assert vocabulary.raw(0) == b"<0>"


@given(st.text(), st.lists(st.integers(1, 5)))
def test_characters_come_whole_however_their_bytes_are_cut(text: str, cuts: list[int]) -> None:
    characters, data, out = Characters(), text.encode("utf-8", "surrogatepass"), ""
    for size in [*cuts, len(data)]:
        out += characters.feed(data[:size])
        data = data[size:]
    out += characters.feed(data) + characters.end()
    assert out == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def test_an_unfinished_character_waits_and_becomes_a_replacement_at_the_end() -> None:
    characters = Characters()
    assert characters.feed("é".encode()[:1]) == ""
    assert characters.end() == "\ufffd"


_LETTERS = st.text("abc", max_size=30)


@given(_LETTERS, st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3), st.lists(st.integers(1, 4)))
def test_the_shown_text_ends_before_the_first_stop_string_however_it_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    expected = text[: min(ends)[1]] if ends else text
    matcher, out, rest = Stops(stops), "", text
    for size in [*cuts, len(text)]:
        shown = matcher.feed(rest[:size])
        out += shown
        rest = rest[size:]
        assert expected.startswith(out)  # nothing of a stop string ever leaks
        if matcher.matched:
            break
    else:
        out += matcher.feed(rest)
    if not matcher.matched:
        out += matcher.end()
    assert out == expected
    assert matcher.matched == bool(ends)
