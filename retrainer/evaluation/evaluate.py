"""How well a model answers records that it never saw, judged by the same score that judges it live."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from exporters.models import Generated, Messages, Signals, prefix_signals, signals
from retrainer.data.curate import PLACEHOLDER, Example
from retrainer.evaluation.latency import Latency
from retrainer.evaluation.metrics import Metric, metrics
from retrainer.evaluation.text_calls import said
from retrainer.progress import Meter, Progress, silent
from retrainer.safety.general import General
from router.scores import Asked, is_json

Generate = Callable[..., list[Generated]]

# Of `router.scores.why_bad`. A refusal is an answer.
ERRORS = frozenset(("missing", "empty", "cut_off", "content_filter", "invalid_json", "schema", "unknown_tool"))


class Scored(Protocol):
    """What `router.score` returns."""

    @property
    def value(self) -> float:
        """0 to 1."""

    @property
    def reason(self) -> str:
        """A short constant."""


class Scorer(Protocol):
    """`router.score`, with the route's score bound: the teacher's answer is the reference."""

    def __call__(
        self,
        *,
        answer: Mapping[str, Any] | None,
        reference: Mapping[str, Any] | None,
        finish_reason: str | None,
        asked: Asked,
    ) -> Scored:
        """Agreement of one answer with its reference. Raises ValueError where that is nothing to compare with."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out record: the model's greedy answer and its score against the teacher's, None (`unscorable`) where
    the teacher's is nothing to compare with: live, such a pair says nothing either. `whole`, `prefix`: signals of the
    answer and of its beginning, None where the model tells no log probabilities."""

    id: str
    text: str
    finish_reason: str
    value: float | None
    reason: str
    whole: Signals | None = None
    prefix: Signals | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`n`: records with a score. `agreement`: mean score; `lower`, `upper`: its interval at `confidence` (two-sided).
    `valid_json`: share of answers that are one JSON value, of the records whose teacher's answer is one (None without
    any). `leaked`: answers that hold a scrubber's placeholder. `tokens_per_second`: generated tokens over the whole
    time, prompts included. `constant`: the agreement of the one answer that the teacher gives most often. `metrics`: by
    name, see `retrainer.evaluation.metrics`. `latency`: of the exported student alone; `general`: of it and the base.
    `outcomes`: of all records, in their order.
    """

    n: int
    agreement: float
    lower: float
    upper: float
    confidence: float
    valid_json: float | None
    leaked: int
    unfinished: int
    reasons: dict[str, int]
    tokens: int
    seconds: float
    constant: float | None = None
    metrics: dict[str, Metric] = {}
    latency: Latency | None = None
    general: General | None = None
    outcomes: list[Outcome] = []

    @property
    def errors(self) -> int:
        """Answers that are none: missing, empty, cut off, filtered, not the JSON or the tool that was asked for."""
        return sum(count for reason, count in self.reasons.items() if reason in ERRORS)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, Any]:
        """The numbers alone, for a manifest: no text."""
        numbers = msgspec.to_builtins(msgspec.structs.replace(self, outcomes=[]))
        del numbers["outcomes"]
        return {**numbers, "tokens_per_second": round(self.tokens_per_second, 1)}


def evaluate(
    generate: Generate,
    examples: Sequence[Example],
    score: Scorer,
    *,
    max_new_tokens: int,
    confidence: float = 0.95,
    drafts: Sequence[str] | None = None,
    phase: str = "evaluate",
    progress: Progress = silent,
) -> Report:
    """Let a model answer `examples` greedily, and score each answer against the teacher's.

    `generate`: a Generator's method. `drafts`: guessed answers, which may save time and change nothing.
    """
    meter = Meter(progress, phase, len(examples))
    began = time.monotonic()
    prompts: list[Messages] = [e.messages for e in examples]
    answers = generate(prompts, max_new_tokens=max_new_tokens, drafts=drafts, tick=meter)
    seconds = time.monotonic() - began
    outcomes = [_outcome(e, a, score) for e, a in zip(examples, answers, strict=True)]
    values = [o.value for o in outcomes if o.value is not None]
    lower, upper = interval(values, confidence=confidence)
    expected = [o for e, o in zip(examples, outcomes, strict=True) if is_json(e.answer)]
    return Report(
        n=len(values),
        agreement=sum(values) / len(values) if values else 0.0,
        lower=lower,
        upper=upper,
        confidence=confidence,
        valid_json=sum(is_json(o.text) for o in expected) / len(expected) if expected else None,
        leaked=sum(PLACEHOLDER.search(o.text) is not None for o in outcomes),
        unfinished=sum(o.finish_reason != "stop" for o in outcomes),
        reasons=dict(Counter(o.reason for o in outcomes).most_common()),
        tokens=sum(a.tokens for a in answers),
        seconds=seconds,
        constant=_constant(examples, score),
        metrics=metrics(
            examples, [o.text for o in outcomes], [o.finish_reason for o in outcomes], [o.value for o in outcomes]
        ),
        outcomes=outcomes,
    )


def _constant(examples: Sequence[Example], score: Scorer) -> float | None:
    if not examples:
        return None
    answer, _ = Counter(e.answer for e in examples).most_common(1)[0]
    always = Generated(text=answer, finish_reason="stop", tokens=0)
    values = [o.value for e in examples if (o := _outcome(e, always, score)).value is not None]
    return sum(values) / len(values) if values else None


def _outcome(example: Example, answer: Generated, score: Scorer) -> Outcome:
    value, reason = None, "unscorable"
    with suppress(ValueError):
        scored = score(
            answer=said(answer.text, example.asked),
            reference=said(example.answer, example.asked),
            finish_reason=answer.finish_reason,
            asked=example.asked,
        )
        value, reason = scored.value, scored.reason
    finished = answer.finish_reason == "stop"
    return Outcome(
        id=example.id,
        text=answer.text,
        finish_reason=answer.finish_reason,
        value=value,
        reason=reason,
        whole=signals(answer.logprobs, finished=finished) if answer.logprobs else None,
        prefix=prefix_signals(answer.logprobs, finished=finished) if answer.logprobs else None,
    )


def interval(values: Sequence[float], *, confidence: float) -> tuple[float, float]:
    """A two-sided interval for the mean of independent scores in [0, 1].

    Where each is 0 or 1: Clopper & Pearson 1934, exact. Else Hoeffding 1963: mean +- sqrt(ln(2/alpha) / 2n), wider,
    but it assumes nothing about the scores' distribution.
    """
    n = len(values)
    if n == 0:
        return 0.0, 1.0
    alpha = 1 - confidence
    mean = sum(values) / n
    if any(v not in (0.0, 1.0) for v in values):
        half = math.sqrt(math.log(2 / alpha) / (2 * n))
        return max(0.0, mean - half), min(1.0, mean + half)
    from scipy.stats import beta  # noqa: PLC0415 - heavy: only an evaluation pays for it

    right = round(sum(values))
    lower = 0.0 if right == 0 else float(beta.ppf(alpha / 2, right, n - right + 1))
    upper = 1.0 if right == n else float(beta.ppf(1 - alpha / 2, right + 1, n - right))
    return lower, upper
