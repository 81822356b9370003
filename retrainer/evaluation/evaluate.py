"""How well a model answers records that it never saw, judged by the same score that judges it live."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from exporters.models import Generated, Messages, Signals, prefix_signals, signals
from retrainer.data.curate import PLACEHOLDER, Example
from retrainer.evaluation.bounds import interval, telling, weighted_mean
from retrainer.evaluation.latency import Latency
from retrainer.evaluation.metrics import Metric, metrics
from retrainer.evaluation.questions import General
from retrainer.evaluation.text_calls import said
from retrainer.progress import Meter, Progress, silent
from retrainer.scoring import Scorer
from router.scores import is_json
from router.thinking import written

Generate = Callable[..., list[Generated]]

# Of `router.scores.why_bad`. A refusal is an answer.
ERRORS = frozenset(("missing", "empty", "cut_off", "content_filter", "invalid_json", "schema", "unknown_tool"))


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out record: the model's greedy answer and its score against the teacher's, None (`unscorable`) where
    the teacher's is nothing to compare with: live, such a pair says nothing either. `reasoning`: what the model thought
    before, which no score sees. `whole`, `prefix`: signals of the
    answer and of its beginning, None where the model tells no log probabilities."""

    id: str
    text: str
    finish_reason: str
    value: float | None
    reason: str
    whole: Signals | None = None
    prefix: Signals | None = None
    reasoning: str = ""

    @property
    def said(self) -> str:
        """All of it, as the draft of another's answer."""
        return written(self.reasoning, self.text)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`n`: records with a score. `agreement`: mean score, by the records' weights; `lower`, `upper`: its interval at
    `confidence` (two-sided), by so many `groups` of near-duplicates, which tell as much as `telling` ones of the
    greatest weight. `valid_json`: share of answers that are one JSON value, of the records whose
    teacher's answer is one (None without any). `leaked`: answers that hold a scrubber's placeholder. `drafted`: whether
    guesses saved time, so that `seconds` say nothing of how fast it is. `constant`: the agreement of the one answer
    that the teacher gives most often. `metrics`: by name, see `retrainer.evaluation.metrics`. `latency`: of the
    exported student alone; `general`: of it and the base. `outcomes`: of all records, in their order.
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
    groups: int | None = None
    telling: float | None = None
    drafted: bool = False
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
    def tokens_per_second(self) -> float | None:
        """Generated tokens over the whole time, prompts included; None where guesses saved time."""
        return None if self.drafted or not self.seconds else self.tokens / self.seconds

    def summary(self) -> dict[str, Any]:
        """The numbers alone, for a manifest: no text."""
        numbers = msgspec.to_builtins(msgspec.structs.replace(self, outcomes=[]))
        del numbers["outcomes"]
        speed = self.tokens_per_second
        return {**numbers, "tokens_per_second": None if speed is None else round(speed, 1)}


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
    scored = [(o.value, e) for e, o in zip(examples, outcomes, strict=True) if o.value is not None]
    values, groups = [value for value, _ in scored], [e.group or e.id for _, e in scored]
    weights = [e.weight for _, e in scored]
    lower, upper = interval(values, confidence=confidence, groups=groups, weights=weights)
    expected = [
        (float(is_json(o.text)), e.weight) for e, o in zip(examples, outcomes, strict=True) if is_json(e.answer)
    ]
    return Report(
        n=len(values),
        groups=len(set(groups)),
        telling=telling(groups, weights),
        agreement=weighted_mean(values, weights),
        lower=lower,
        upper=upper,
        confidence=confidence,
        valid_json=weighted_mean(*map(list, zip(*expected, strict=True))) if expected else None,
        leaked=sum(PLACEHOLDER.search(o.said) is not None for o in outcomes),
        unfinished=sum(o.finish_reason != "stop" for o in outcomes),
        reasons=dict(Counter(o.reason for o in outcomes).most_common()),
        tokens=sum(a.tokens for a in answers),
        seconds=seconds,
        drafted=any(a.drafted for a in answers),
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
    found = [(o.value, e.weight) for e in examples if (o := _outcome(e, always, score)).value is not None]
    return weighted_mean([value for value, _ in found], [weight for _, weight in found]) if found else None


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
        reasoning=answer.reasoning,
    )
