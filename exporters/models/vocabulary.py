"""From token ids to exact bytes, by an artefact's tokenizer.json."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"  # SentencePiece's


class Vocabulary:
    """The bytes of each token: of a byte-level BPE (GPT-2's, SmolLM2's, Qwen's, Llama 3's), or of SentencePiece's
    pieces (Llama 2's, Mistral's, Gemma's, Phi 3's, T5's).

    A tokenizer of another kind has no such table: there `decode` (ids to text) is asked for each token by itself,
    so characters that span tokens come out as replacement characters. `exact`: whether there is one.
    """

    def __init__(self, tokenizer: dict[str, Any], decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._special = {int(t["id"]) for t in tokenizer.get("added_tokens", ()) if t.get("special")}
        added = {int(t["id"]): str(t["content"]).encode() for t in tokenizer.get("added_tokens", ())}
        self._bytes: dict[int, bytes] = {}
        decoders = list(_decoders(tokenizer.get("decoder")))
        if any(decoder.get("type") == "ByteLevel" for decoder in decoders):
            table = byte_of_character()
            for piece, number in _pieces(tokenizer):
                if all(c in table for c in piece):
                    self._bytes[number] = bytes(table[c] for c in piece)
        elif any(d.get("type") == "Metaspace" or d.get("pattern") == {"String": _SPACE} for d in decoders):
            for piece, number in _pieces(tokenizer):
                byte = _BYTE.fullmatch(piece)
                self._bytes[number] = bytes([int(byte[1], 16)]) if byte else piece.replace(_SPACE, " ").encode()
        self.exact = bool(self._bytes)
        self._bytes.update(added)

    @classmethod
    def load(cls, folder: Path, decode: Callable[[Sequence[int]], str]) -> "Vocabulary":
        """Read `folder`/tokenizer.json."""
        return cls(json.loads((folder / "tokenizer.json").read_text("utf-8")), decode)

    def raw(self, token: int) -> bytes:
        """The token's bytes; of a special token those of its name."""
        known = self._bytes.get(token)
        return self._decode([token]).encode() if known is None else known

    def shown(self, token: int) -> bytes:
        """The bytes that belong to the answer: none for a special token."""
        return b"" if token in self._special else self.raw(token)


def _decoders(decoder: Any) -> Iterator[dict[str, Any]]:
    if isinstance(decoder, dict):
        yield decoder
        for one in decoder.get("decoders", ()):
            yield from _decoders(one)


def _pieces(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Each piece with its id: BPE has a table, Unigram a list of (piece, score)."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    else:
        yield from ((piece, number) for number, (piece, _) in enumerate(vocabulary))


def byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others are moved behind U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(moved)}
