"""Exact bytes of tokens."""

import pytest

from exporters.models.vocabulary import Vocabulary

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


@pytest.mark.parametrize("bpe", [True, False])
def test_a_sentencepiece_token_keeps_its_space_and_its_byte(bpe: bool) -> None:
    pieces = ["<0x0A>", "▁the", "é", "<0xE2>"]
    model = {"vocab": {piece: i for i, piece in enumerate(pieces)} if bpe else [[piece, -1.0] for piece in pieces]}
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoder = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    vocabulary = Vocabulary({"model": model, "decoder": decoder}, lambda ids: pytest.fail("must not ask"))
    assert [vocabulary.raw(i) for i in range(4)] == [b"\n", b" the", "é".encode(), b"\xe2"]


def test_a_tokenizer_of_another_kind_is_asked_for_each_token() -> None:
    tokenizer = {"model": {"vocab": {"##the": 0}}, "decoder": {"type": "WordPiece"}}
    vocabulary = Vocabulary(tokenizer, lambda ids: f"<{ids[0]}>")
    assert vocabulary.raw(0) == b"<0>"
