"""Answers in a form that was asked for: which tokens may come next under a JSON Schema. Only worker processes import
this.

llguidance walks the schema's grammar along the answer: a mask takes 20 to 100 microseconds, a schema some milliseconds
at its first use. What it can't enforce of a schema it names, and the request is refused: an answer that only looks as
if it had been obeyed helps nobody.
"""

from collections.abc import Collection
from copy import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from gateway.engines.errors import DecodeFailed, InvalidRequest
from router.thinking import Thinking

KEPT = 64  # schemas of the last requests
WHITE_SPACE = r" |\r?\n[ \t]{0,40}"  # where any may stand: left to itself, a small model goes on with it for ever

Allowed = npt.NDArray[np.bool_]


class Forms:
    """The forms of one model's answers. `tokenizer`: the text of its tokenizer.json. `size`: of its rows of logits.
    `ends`: the tokens that end an answer."""

    def __init__(self, tokenizer: str, size: int, ends: Collection[int]) -> None:
        self._tokens = LLTokenizer(tokenizer, n_vocab=size, eos_token=sorted(ends))
        self._grammar = lru_cache(KEPT)(self._compiled)

    @classmethod
    def load(cls, folder: Path, *, size: int, ends: Collection[int]) -> "Forms":
        """Of an artefact's folder."""
        return cls((folder / "tokenizer.json").read_text("utf-8"), size, ends)

    def of(self, schema: str, *, opened: bool = False) -> "Form":
        """For one answer. `schema`: JSON. Raises InvalidRequest, which names what can't be enforced."""
        return Form(self._grammar(schema).deep_copy(), self._tokens, opened=opened)

    def _compiled(self, schema: str) -> LLMatcher:
        why = ""
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITE_SPACE})
            matcher = LLMatcher(self._tokens, grammar, log_level=0)
        except ValueError as error:  # nested too deep
            why = str(error)
        else:
            why = matcher.get_error().strip().splitlines()[-1] if matcher.is_error() else ""
        if why:
            raise InvalidRequest(
                f"response_format holds a schema that can't be enforced: {why}", param="response_format"
            )
        return matcher


class Form:
    """One answer's way through a schema. A model may think before it, and put white space around that: the answer
    begins after both. `opened`: it thinks already."""

    def __init__(self, matcher: LLMatcher, tokens: LLTokenizer, *, opened: bool = False) -> None:
        self._matcher, self._tokens = matcher, tokens
        self._bits = allocate_token_bitmask(1, tokens.vocab_size)
        self._thinking = Thinking(opened=opened)

    @property
    def begun(self) -> bool:
        """Whether something of the answer has come."""
        return self._thinking.begins is not None

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def waits(self, data: bytes) -> bool:
        """Whether a token of this text comes before the answer, where any is allowed."""
        if self._thinking.thinks:
            return True
        then = copy(self._thinking)
        then.feed(data.decode("utf-8", "replace"))
        return bool(data) and then.begins is None

    def allowed(self, size: int) -> Allowed:
        """Which of `size` tokens may come next. Raises DecodeFailed where the schema asks for too much."""
        fill_next_token_bitmask(self._matcher, self._bits, 0)
        if self._matcher.is_error():
            raise DecodeFailed(f"the schema could not be followed: {self._matcher.get_error()}")
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[:size]
        return np.pad(bits, (0, size - bits.size)).astype(np.bool_)

    def take(self, token: int, data: bytes) -> None:
        """The model goes on with a token of this text. Raises DecodeFailed where the answer has begun otherwise than
        the schema has it."""
        if not self.begun:
            text = data.decode("utf-8", "replace")
            _, answer = self._thinking.feed(text)
            if not self.begun:
                return
            if answer.lstrip() != text.lstrip():  # what looked like a mark was none, or a token holds a mark's end, too
                if not self.takes(answer.encode()):
                    raise DecodeFailed("the answer began in another form than the one asked for")
                return
        self._matcher.consume_token(token)

    def takes(self, text: bytes) -> bool:
        """Go on with a text; False where it isn't allowed, and then all that follows is undefined."""
        pieces = self._tokens.tokenize_bytes(text)
        return bool(self._matcher.try_consume_tokens(pieces) == len(pieces))
