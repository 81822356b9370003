"""The report on a model's answers."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from retrainer_fakes import example

from collector import CollectorError
from exporters.models import Generated
from retrainer.evaluation.clusters import clusters
from retrainer.evaluation.evaluate import evaluate
from retrainer.scoring import scorer
from router import Asked, score
from router.policy_quality import WeightedScore


class Score(msgspec.Struct, frozen=True):
    value: float
    reason: str


def same(
    *, answer: Mapping[str, Any] | None, reference: Mapping[str, Any] | None, finish_reason: str | None, asked: Asked
) -> Score:
    right = finish_reason == "stop" and answer == reference
    return Score(float(right), "same" if right else "different")


def speak(texts: list[str], finish: str = "stop", *, drafted: bool = False) -> Any:
    def generate(prompts: Any, *, max_new_tokens: int, drafts: Any, tick: Any) -> list[Generated]:
        for done in range(len(prompts)):
            tick(done + 1)
        return [Generated(text=t, finish_reason=finish, tokens=3, drafted=drafted) for t in texts]

    return generate


def test_the_report_counts_agreement_json_leaks_and_reasons() -> None:
    examples = [example(n) for n in range(4)]
    texts = [examples[0].answer, "no json", '{"colour": "<PERSON_1>"}', examples[3].answer]
    seen: list[tuple[str, int, int]] = []
    report = evaluate(
        speak(texts), examples, same, max_new_tokens=8, progress=lambda p, d, t, _: seen.append((p, d, t))
    )
    assert (report.n, report.agreement, report.valid_json, report.leaked) == (4, 0.5, 0.75, 1)
    assert report.reasons == {"same": 2, "different": 2}
    assert report.tokens == 12
    assert report.lower < 0.5 < report.upper
    assert [o.id for o in report.outcomes] == [e.id for e in examples]
    assert seen[-1] == ("evaluate", 4, 4)


def test_what_was_guessed_beforehand_says_nothing_of_speed() -> None:
    examples = [example(1)]
    answers = [examples[0].answer]
    plain = evaluate(speak(answers), examples, same, max_new_tokens=8, drafts=answers)
    assert (plain.tokens_per_second or 0.0) > 0.0
    drafted = evaluate(speak(answers, drafted=True), examples, same, max_new_tokens=8, drafts=answers)
    assert drafted.tokens_per_second is None
    assert drafted.summary()["tokens_per_second"] is None


def test_records_that_resemble_each_other_say_less() -> None:
    alone = [example(n) for n in range(40)]
    alike = [msgspec.structs.replace(e, group=f"g{n // 4}") for n, e in enumerate(alone)]
    one, other = (evaluate(speak([e.answer for e in some]), some, same, max_new_tokens=8) for some in (alone, alike))
    assert (one.groups, other.groups) == (40, 10)
    assert one.agreement == other.agreement == 1.0
    assert (one.lower, other.lower) == pytest.approx((0.025 ** (1 / 40), 0.025 ** (1 / 10)))


def test_agreement_is_of_the_requests_that_the_records_stand_for() -> None:
    """The student is right on what it serves, of which its teacher answered few, and wrong on what it defers."""
    easy = [msgspec.structs.replace(example(n, answer="{}"), weight=4.0) for n in range(10)]
    hard = [msgspec.structs.replace(example(n, answer="{1}"), weight=0.5) for n in range(10, 30)]
    found = evaluate(speak(["{}"] * 30), [*easy, *hard], same, max_new_tokens=8)
    assert (found.n, found.agreement) == (30, pytest.approx(40 / 50))
    assert found.metrics["agreement"].value == pytest.approx(40 / 50)
    assert found.constant == pytest.approx(10 / 50), "the most frequent answer is that to the hard ones"
    assert found.lower < 40 / 50 < found.upper
    assert (found.groups, found.telling) == (30, pytest.approx(50 / 4))
    assert found.valid_json == 1.0
    assert clusters(found, [*easy, *hard])[0].agreement == 0.0


def test_an_answer_that_was_cut_is_no_agreement() -> None:
    examples = [example(1)]
    report = evaluate(speak([examples[0].answer], "length"), examples, same, max_new_tokens=8)
    assert (report.agreement, report.unfinished) == (0.0, 1)


def test_valid_json_is_judged_only_where_the_teacher_answers_json() -> None:
    report = evaluate(speak(["words"]), [example(1, answer="free text")], same, max_new_tokens=8)
    assert report.valid_json is None


def test_a_record_whose_reference_can_not_be_scored_is_left_out_and_keeps_its_place() -> None:
    deep = "[" * 600 + "]" * 600
    examples = [example(1, answer='{"a": 1}'), example(2, answer=deep), example(3, answer='{"a": 1}')]
    texts = ['{"a":1}', '{"a":1}', "[" * 100_000]
    report = evaluate(speak(texts), examples, partial(score, "json_fields"), max_new_tokens=8)
    assert (report.n, report.agreement) == (2, 0.5)
    assert [(o.value, o.reason) for o in report.outcomes] == [
        (1.0, "equal"), (None, "unscorable"), (0.0, "invalid_json")
    ]  # fmt: skip
    assert [o.text for o in report.outcomes] == texts


def test_the_summary_for_the_manifest_holds_no_text() -> None:
    report = evaluate(speak(["secret words"]), [example(1)], same, max_new_tokens=8)
    assert "secret" not in json.dumps(report.summary())


def test_an_answer_is_scored_by_what_its_request_asked_for() -> None:
    asked = msgspec.structs.replace(example(1, answer='{"a": 1}'), asked=Asked(json=True))
    report = evaluate(
        speak(["a 1", "a 1"]), [asked, example(2, answer="a 1")], partial(score, "exact"), max_new_tokens=8
    )
    assert [(o.value, o.reason) for o in report.outcomes] == [(0.0, "invalid_json"), (1.0, "equal")]


def test_the_score_is_the_policys_a_list_too_and_meanings_need_a_model(tmp_path: Path) -> None:
    listed = (WeightedScore(score="exact", weight=1.0), WeightedScore(score="token_f1", weight=1.0))
    report = evaluate(speak(["a b"]), [example(1, answer="a c")], scorer(listed, tmp_path), max_new_tokens=8)
    assert report.agreement == pytest.approx(0.25)
    (tmp_path / "models" / "minilm").mkdir(parents=True)
    with pytest.raises(CollectorError, match="holds no encoder"):
        scorer("embedding", tmp_path)
