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
