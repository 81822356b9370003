"""From token ids to text that may be shown: exact bytes, whole characters, and nothing of a stop string."""

import codecs
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router.thinking import opens, overlap

_LONGEST_MARK = 16  # tokens, with the white space after it


class Vocabulary:
    """The bytes of each token of a byte-level BPE (GPT-2's, SmolLM2's, Qwen's, Llama 3's), from tokenizer.json.

    A tokenizer of another kind has no such table: there `decode` (ids to text) is asked for each token by itself,
    so characters that span tokens come out as replacement characters.
    """

    def __init__(self, tokenizer: dict[str, Any], decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._special = {int(t["id"]) for t in tokenizer.get("added_tokens", ()) if t.get("special")}
        added = {int(t["id"]): str(t["content"]).encode() for t in tokenizer.get("added_tokens", ())}
        self._bytes: dict[int, bytes] = {}
        if _is_byte_level(tokenizer.get("decoder")):
            table = _byte_of_character()
            for piece, number in tokenizer["model"]["vocab"].items():
                if all(c in table for c in piece):
                    self._bytes[number] = bytes(table[c] for c in piece)
        self.byte_level = bool(self._bytes)
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

    def opens(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt, in the model's template, has opened the thinking."""
        return opens(b"".join(map(self.raw, prompt[-_LONGEST_MARK:])).decode("utf-8", "replace"))


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    return decoder.get("type") == "ByteLevel" or any(map(_is_byte_level, decoder.get("decoders", ())))


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others are moved behind U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(moved)}


class Characters:
    """Bytes to text as they come: an unfinished character waits for its end, invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The characters that are complete now."""
        return self._decoder.decode(data)

    def end(self) -> str:
        """What is left of a character that was never finished, as U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)


class Stops:
    """Withholds text that may be the beginning of a stop string, also across tokens."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """The text that may be shown. After a match (`matched`) it ends right before the stop string."""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.matched, self._held = True, ""
            return text[: min(found)[1]]  # the stop string that ends first, however the text was cut into pieces
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was withheld: the answer is over, so it was no stop string."""
        held, self._held = self._held, ""
        return held
