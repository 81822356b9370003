"""The seam to the model: prompts to tokens, and tokens to logits, for several requests in one pass."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from exporters.models.vocabulary import Vocabulary
from gateway.engines.form import Form
from gateway.engines.sampling import Row


class Rows(Protocol):
    """The sequences that the model holds; see exporters.models.rows."""

    count: int

    def share(self, row: int, line: Sequence[int]) -> int:
        """Begin a row with what is held of a prompt already; returns of how many tokens."""

    def read(self, row: int, tokens: Sequence[int]) -> Row:
        """Append a piece of a prompt; the logits after its last token."""

    def step(self, tokens: Sequence[int]) -> Sequence[Row]:
        """Append one token to each of the first rows; the logits after each."""

    def room(self, tokens: int) -> bool:
        """Whether so many more tokens fit; what is only kept is given up for them."""

    def swap(self, one: int, other: int) -> None:
        """Let two rows change places."""

    def clear(self, row: int) -> None:
        """Nobody needs a row's answer any more."""


class Runtime(Protocol):
    """A loaded model. `context_length`: the most tokens of a prompt and its answer; `most_answer`: of an answer."""

    context_length: int
    most_answer: int
    ends: frozenset[int]
    vocabulary: Vocabulary

    @property
    def rows(self) -> Rows:
        """What it holds."""

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The prompt's tokens, up to where the answer begins. Raises InvalidRequest where the template refuses."""

    def form(self, schema: str, *, opened: bool) -> Form:
        """For one answer that must fit a JSON Schema; `opened`: the prompt has opened the thinking. Raises
        InvalidRequest where the schema can't be enforced."""
