"""What an operator leaves out: by length, refusals, patterns, and secrets. Pure.

That is what a student isn't to learn from. It is asked all the same once it serves, so what it is measured with stays
as production has it; only what is too long for it in tokens is left out there, too.
"""

import re
from collections.abc import Callable, Sequence

from retrainer.data.curate import Example, Kept, Side
from retrainer.data.secrets import planted_in
from router.policy_data import DataPolicy, Patterns
from router.scores import is_refusal

Fits = Callable[[Example], bool]


class Filters:
    """A route's filters, in their order. `fits`: whether an example is short enough, in tokens."""

    def __init__(self, policy: DataPolicy, fits: Fits) -> None:
        self._policy, self._fits = policy, fits
        self._allow, self._deny = _Compiled(policy.allow), _Compiled(policy.deny)

    def reason(self, kept: Kept, part: Side) -> str | None:
        """Why an example is left out of this part, or None."""
        example = kept.example
        if example is None:
            return kept.reason
        if part is Side.TRAIN and (reason := self._unwanted(kept, example)):
            return reason
        return None if self._fits(example) else "too_long"

    def _unwanted(self, kept: Kept, example: Example) -> str | None:
        """Why it isn't to be learnt from."""
        if len(example.answer.strip()) < self._policy.min_characters:
            return "too_short"
        most = self._policy.max_characters
        if most is not None and len(example.said) + sum(len(m["content"]) for m in example.messages) > most:
            return "too_long"
        if self._policy.refusals == "drop" and (kept.refused or is_refusal(example.answer)):
            return "refusal"
        if self._deny.found(example):
            return "denied"
        if not self._allow.found(example, empty=True):
            return "not_allowed"
        return "secret" if self._policy.secrets == "drop" and planted_in(example) else None


class _Compiled:
    def __init__(self, patterns: Patterns) -> None:
        self._prompt = [re.compile(p) for p in patterns.prompt]
        self._answer = [re.compile(p) for p in patterns.answer]

    def found(self, example: Example, *, empty: bool = False) -> bool:
        """Denied where any pattern is found, in the thinking too. Allowed (`empty`) where each text that has patterns
        holds one."""
        prompt = "\n".join(m["content"] for m in example.messages if m["role"] != "system")
        at = [
            _any(self._prompt, prompt, empty=empty),
            _any(self._answer, example.answer if empty else example.said, empty=empty),
        ]
        return all(at) if empty else any(at)


def _any(patterns: Sequence[re.Pattern[str]], text: str, *, empty: bool) -> bool:
    return any(p.search(text) for p in patterns) if patterns else empty
