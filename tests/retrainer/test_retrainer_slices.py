from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from retrainer_fakes import example

from exporters.models import Generated, Messages
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.slices import agreements, remembering
from retrainer.scoring import scorer

JUDGED = [example(n, answer=f"answer {n}") for n in range(6)]


def report(wrong: Sequence[int]) -> Report:
    def say(prompts: Sequence[Messages], **_: Any) -> list[Generated]:
        texts = ("wrong" if n in wrong else e.answer for n, e in enumerate(JUDGED))
        return [Generated(text=text, finish_reason="stop", tokens=1) for text in texts]

    return evaluate(say, JUDGED, scorer("exact", "."), max_new_tokens=8)


def test_an_agreement_is_of_the_records_that_count_and_of_the_reports_that_have_any() -> None:
    found = agreements({"quantized": report([0, 4]), "base": report(range(6))}, JUDGED, {"x4", "x5"})
    assert [(name, m.value, m.n) for name, m in found.items()] == [("quantized", 0.5, 2), ("base", 0.0, 2)]
    assert agreements({"quantized": report([])}, JUDGED, {"elsewhere"}) == {}


def test_an_agreement_is_by_the_records_weights() -> None:
    heavy = [msgspec.structs.replace(e, weight=4.0 if e.id == "x4" else 1.0) for e in JUDGED]
    found = agreements({"quantized": report([4])}, heavy, {"x3", "x4", "x5"})["quantized"]
    assert (found.value, found.lower, found.upper) == (pytest.approx(2 / 6), 0.0, 1.0)


def test_what_was_answered_is_not_asked_again_and_what_is_new_is_asked_once() -> None:
    asked: list[Any] = []

    def say(prompts: Sequence[Messages], *, drafts: Sequence[str] | None, **how: Any) -> list[Generated]:
        asked.append((list(prompts), drafts, how))
        return [Generated(text="new", finish_reason="length", tokens=3) for _ in prompts]

    generate = remembering(say, JUDGED, report([1]))
    new = example(9)
    prompts = [new.messages, JUDGED[1].messages, JUDGED[2].messages]
    said = generate(prompts, drafts=["a", "b", "c"], max_new_tokens=4)
    assert [(a.text, a.finish_reason) for a in said] == [("new", "length"), ("wrong", "stop"), ("answer 2", "stop")]
    assert generate(prompts, drafts=None, max_new_tokens=4) == said
    assert asked == [([new.messages], ["a"], {"max_new_tokens": 4})]
