"""The seam to the model: prompts to tokens, and tokens to logits with a cache that can be rewound."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.engines.form import Form
from gateway.engines.sampling import Row
from gateway.engines.text import Vocabulary


class Cache(Protocol):
    """One sequence's tokens and KV cache."""

    @property
    def tokens(self) -> Sequence[int]:
        """What the cache holds."""

    @property
    def capacity(self) -> int:
        """How many tokens fit."""

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""

    def append(self, tokens: Sequence[int]) -> None:
        """One pass of the model over `tokens`."""

    def logits(self, count: int) -> Sequence[Row]:
        """The logits after each of the last pass's last `count` tokens: [count, vocabulary]."""


class Runtime(Protocol):
    """A loaded model."""

    context_length: int
    ends: frozenset[int]
    vocabulary: Vocabulary
    load_seconds: float
    wide: bool  # whether a pass gives the logits of all its tokens, not of the last alone

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt's tokens, up to where the answer begins. Raises InvalidRequest where the template refuses."""

    def form(self, schema: str, *, opened: bool) -> Form:
        """For one answer that must fit a JSON Schema; `opened`: the prompt has opened the thinking. Raises
        InvalidRequest where the schema can't be enforced."""

    def cache(self, length: int) -> Cache:
        """An empty cache for at least `length` tokens, as far as the context reaches."""
