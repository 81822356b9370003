"""A frozen general suite: what the base knew, does the student still?"""

import re
from collections.abc import Callable
from functools import cache
from importlib import resources

import msgspec

from exporters.models import Generated

TOKENS = 16


class _Question(msgspec.Struct, frozen=True):
    text: str
    right: tuple[str, ...]


class _File(msgspec.Struct, frozen=True):
    source: str
    questions: list[_Question]


class General(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the questions, in their order, were answered right."""

    right: list[bool]

    @property
    def share(self) -> float:
        """Of right answers."""
        return sum(self.right) / len(self.right)

    def forgotten(self, base: "General") -> float:
        """The share of what the base answers right that is not any more; 0 where it knows nothing."""
        known = [now for now, then in zip(self.right, base.right, strict=True) if then]
        return known.count(False) / len(known) if known else 0.0


@cache
def _questions() -> list[_Question]:
    path = resources.files("retrainer.evaluation").joinpath("questions.json")
    return msgspec.json.decode(path.read_bytes(), type=_File).questions


def ask_general(generate: Callable[..., list[Generated]], *, thinking_tokens: int = 0) -> General:
    """Ask every question, without any system message; an answer is right that names a right word. `thinking_tokens`:
    that may come before it."""
    prompts = [[{"role": "user", "content": q.text}] for q in _questions()]
    answers = generate(prompts, max_new_tokens=TOKENS + thinking_tokens)
    return General(
        right=[
            any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", a.text, re.IGNORECASE) for word in q.right)
            for q, a in zip(_questions(), answers, strict=True)
        ]
    )
