"""The seam to whatever answers: base, student and quantized student alike."""

from collections.abc import Sequence
from typing import Protocol

from exporters.models import Generated, Messages
from exporters.models.genai import Tick


class Generator(Protocol):
    """Base, student and quantized student answer the same way."""

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """Greedy answers in the prompts' order. `drafts`: guesses that may save time and change nothing."""


def with_room(longest: int) -> int:
    """How many tokens an answer may get where the longest takes `longest`: its end token and a little more, so that a
    student that rambles is told apart from one that stops."""
    return longest + 1 + max(2, longest // 8)
