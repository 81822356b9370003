"""What a pair says of quality, by each reference, and what is no pair."""

from typing import Any

import pytest
from collector_fakes import answer, call, decision, exchange

from collector.observe import Answered
from collector.pairs import Pair, pairs, settled
from collector.parse import completion
from collector.truth import right_answer
from router import Arm, Asked, RoutePolicy


def policy(**quality: Any) -> RoutePolicy:
    return RoutePolicy.model_validate({"teachers": ["openai/gpt-4o"], "student": {}, "quality": quality})


def said(arm: Arm, text: str, *, finish: str = "stop", **changes: Any) -> Answered:
    return call(arm, **changes), completion(answer(text, finish=finish))


def of(*answers: Answered, by: RoutePolicy | None = None, asked: Asked | None = None, **changes: Any) -> list[Pair]:
    seen = exchange(served=answers[0][0], shadows=[a[0] for a in answers[1:]], **changes)
    return pairs(seen, answers, by or policy(), asked or Asked())


S, T = Arm.STUDENT, Arm.TEACHER


def told(pair: Pair, by: RoutePolicy, **more: Any) -> tuple[float, float | None] | None:
    found = settled(pair, by.quality, **more)
    return None if found is None else (found.value, found.pair_value)


def test_agreement_is_the_students_score_against_one() -> None:
    by = policy(score="token_f1")
    (pair,) = of(said(T, "red fox"), said(S, "red cat"), by=by)
    assert told(pair, by) == (pytest.approx(0.5), 1.0)


def test_self_asks_that_the_student_agree_as_well_as_the_teacher_agrees_with_itself() -> None:
    by = policy(score="token_f1", reference="self", audit_rate=0.2)
    (pair,) = of(said(T, "red fox"), said(S, "red cat"), said(T, "a red fox"), by=by)
    assert told(pair, by) == (pytest.approx(0.5), pytest.approx(0.8))
    assert pair.observation.inclusion == 0.2
    (alone,) = of(said(T, "red fox"), said(S, "red cat"), by=by)
    assert told(alone, by) is None


def test_with_self_a_second_answer_that_failed_or_can_not_be_read_makes_no_pair() -> None:
    by = policy(score="exact", reference="self")
    for second in ((call(T, error="http_500"), None), (call(T), None)):
        (pair,) = of(said(T, "a"), said(S, "a"), second, by=by)
        assert told(pair, by) is None


def test_with_self_an_audited_answer_is_compared_with_the_first_of_two_shadows() -> None:
    by = policy(score="exact", reference="self")
    drawn = decision(arm=S, version="v1", audited=0.05)
    (pair,) = of(said(S, "b"), said(T, "b"), said(T, "c"), by=by, decision=drawn)
    assert told(pair, by) == (1.0, 0.0)
    assert pair.observation.inclusion == 0.05


def test_agreement_takes_no_notice_of_a_second_answer() -> None:
    by = policy(score="exact")
    (pair,) = of(said(T, "a"), said(S, "a"), said(T, "b"), by=by)
    assert told(pair, by) == (1.0, 1.0)


def test_truth_scores_both_against_the_right_answer() -> None:
    by = policy(score="token_f1", reference="truth")
    (pair,) = of(said(T, "red fox"), said(S, "red cat"), by=by)
    assert told(pair, by, truth=right_answer("red cat")) == (1.0, pytest.approx(0.5))


def test_the_right_answer_may_be_a_whole_message_with_tool_calls() -> None:
    by = policy(score="tool_calls", reference="truth")
    made = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    calling = (call(S), completion(answer("", tool_calls=[made], finish="tool_calls")))
    (pair,) = of(said(T, "I can look that up"), calling, by=by)
    truth = right_answer('{"role": "assistant", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}')
    assert told(pair, by, truth=truth) == (1.0, 0.0)
    assert right_answer('{"a": 1}').message == {"role": "assistant", "content": '{"a": 1}'}
    assert right_answer("[" * 100_000).message["content"] == "[" * 100_000


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_teachers_answer_that_did_not_end_well_is_nothing_to_compare_with(finish: str) -> None:
    assert of(said(T, "red fox", finish=finish), said(S, "red fox")) == []


def test_what_the_request_asked_for_decides_whether_an_answer_is_bad() -> None:
    by = policy(score="token_f1")
    asked = Asked(json=True)
    (pair,) = of(said(T, '{"a": 1}'), said(S, "a 1"), by=by, asked=asked)
    assert told(pair, by) == (0.0, 1.0)
    (bad,) = of(said(T, "no json"), said(S, '{"a": 1}'), by=by, asked=asked)
    assert told(bad, by) is None, "the teacher's is none either"


def test_meaning_is_compared_by_the_similarity_that_is_passed() -> None:
    by = policy(score="embedding")
    (pair,) = of(said(T, "x"), said(S, "y"), by=by)
    assert told(pair, by, similarity=lambda a, b: 0.25) == (0.25, 1.0)
    with pytest.raises(TypeError, match="pass similarity"):
        settled(pair, by.quality)
