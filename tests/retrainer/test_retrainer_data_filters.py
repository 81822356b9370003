from typing import Any

import msgspec
import pytest
from pydantic import ValidationError
from retrainer_fakes import example, interaction, teacher

from collector.record import Answer
from retrainer.data.curate import Kept, Side, example_of
from retrainer.data.filters import Filters
from retrainer.data.labels import MOST_VALUES, Labels, shift
from retrainer.data.weights import chance, inverse
from router.decision import Arm
from router.policy_data import DataPolicy

JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"type": "object", "required": ["colour"]}},
}
TOOL = {
    "type": "function",
    "function": {"name": "paint", "parameters": {"type": "object", "required": ["colour"]}},
}


def calling(name: str, arguments: str) -> Answer:
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return teacher("", finish_reason="tool_calls", message=message)


@pytest.mark.parametrize(
    ("answer", "asking", "reason"),
    [
        (teacher("red", finish_reason="content_filter"), {}, "content_filter"),
        (teacher("red"), {"response_format": {"type": "json_object"}}, "invalid_json"),
        (teacher('{"color": 1}'), {"response_format": JSON_SCHEMA}, "schema"),
        (teacher('{"colour": 1}'), {"response_format": JSON_SCHEMA}, None),
        (calling("erase", "{}"), {"tools": [TOOL]}, "unknown_tool"),
        (calling("paint", '{"color": 1}'), {"tools": [TOOL]}, "tool_arguments"),
        (calling("paint", "colour"), {"tools": [TOOL]}, "tool_arguments"),
        (calling("paint", '{"colour": 1}'), {"tools": [TOOL]}, "tools"),
        (teacher("red"), {"tools": 5, "functions": {"name": "x"}}, "tools"),
    ],
)
def test_an_answer_must_be_what_its_request_asked_for(
    answer: Answer, asking: dict[str, Any], reason: str | None
) -> None:
    record = interaction(1, request={**interaction(1).request, **asking}, answers=(answer,))
    assert example_of(record, 1).reason == reason


@pytest.mark.parametrize(
    ("policy", "answer", "reason"),
    [
        ({}, "I'm sorry, I can't help with that.", None),
        ({"refusals": "drop"}, "I'm sorry, I can't help with that.", "refusal"),
        ({"refusals": "drop"}, "I can't find that order.", None),
        ({"min_characters": 5}, "red ", "too_short"),
        ({"max_characters": 40}, "red", "too_long"),
        ({"deny": {"answer": ["(?i)RED"]}}, "red", "denied"),
        ({"deny": {"prompt": ["car"]}}, "red", "denied"),
        ({"deny": {"prompt": ["Name the colour"]}}, "red", None),
        ({"allow": {"prompt": ["boat", "car"]}}, "red", None),
        ({"allow": {"prompt": ["car"], "answer": ["blue"]}}, "red", "not_allowed"),
        ({"allow": {"prompt": ["boat"]}}, "red", "not_allowed"),
    ],
)
def test_what_an_operator_leaves_out_is_left_out_with_its_reason(
    policy: dict[str, Any], answer: str, reason: str | None
) -> None:
    filters = Filters(DataPolicy.model_validate(policy), lambda _: True)
    kept = Kept(example(1, text="a red car in the long garden", answer=answer), None)
    assert filters.reason(kept, Side.TRAIN) == reason
    assert filters.reason(kept, Side.TEST) is None, "what is measured with stays as production has it"
    assert Filters(DataPolicy(), lambda _: False).reason(kept, Side.TEST) == "too_long", "no student can read it"


def test_a_refusal_in_its_own_field_is_kept_as_the_answer_or_dropped_as_a_refusal() -> None:
    message = {"role": "assistant", "content": None, "refusal": "That is not for me."}
    kept = example_of(interaction(1, answers=(teacher("", message=message),)), 1)
    assert kept.example is not None
    assert kept.example.answer == "That is not for me."
    assert Filters(DataPolicy(refusals="drop"), lambda _: True).reason(kept, Side.TRAIN) == "refusal"
    assert Filters(DataPolicy(), lambda _: True).reason(kept, Side.TRAIN) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"deny": {"answer": ["("]}}, "is no regular expression"),
        ({"balance": {}}, "set semantic, for example"),
    ],
)
def test_a_setting_that_can_not_work_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataPolicy.model_validate(data)


def test_the_chance_of_a_teachers_answer_is_the_logged_one() -> None:
    student = Answer(arm=Arm.STUDENT, version="v", status=200, message={"role": "assistant", "content": "x"})
    arm: dict[str, Any] = {"arm": Arm.STUDENT, "version": "v", "propensity": 0.9, "answered": 0.145}
    audited = interaction(1, answers=(student, teacher("a")), **arm)
    deferred = interaction(1, answers=(teacher("a"), msgspec.structs.replace(student, deferred=True)), **arm)
    assert chance(interaction(1)) == 1.0, "before any student served"
    assert chance(interaction(1, propensity=0.1, answered=0.145)) == 0.145
    assert chance(audited) == 0.145
    assert chance(deferred) == 1.0, "the teacher answers all that a student defers"
    before = interaction(1, propensity=0.1, answered=None)
    assert chance(before) == 0.1, "a record of before the chance was logged has its arm's"
    assert chance(interaction(1, answers=audited.answers, **(arm | {"answered": None}))) == pytest.approx(0.1)
    assert (inverse(0.25, 10.0), inverse(0.01, 10.0), inverse(0.0, 10.0)) == (4.0, 10.0, 10.0)


def test_the_distance_of_labels_is_half_the_sum_of_the_differences() -> None:
    production, made = Labels(), Labels()
    for answer in ['{"a": "x", "n": 1}'] * 6 + ['{"a": "y", "n": 1}'] * 3 + ['{"a": "z", "n": 1}']:
        production.add(answer)
    made.add('{"a": "x", "n": 1}', 2.0)
    made.add('{"a": "y", "n": 1}', 2.0)
    found = shift(production, made)
    assert found["a"] == {"values": 3, "distance": pytest.approx((0.1 + 0.2 + 0.1) / 2), "missing": 1}
    assert found["n"] == {"values": 1, "distance": 0.0, "missing": 0}
    assert "x" not in str(found), "no value of anybody's"


def test_answers_that_are_no_labels_are_not_compared() -> None:
    production = Labels()
    for n in range(MOST_VALUES + 5):
        production.add(f"free text number {n}")
    assert shift(production, production) == {}
    assert (len(production.fields[""]), production.others) == (MOST_VALUES, {"": 5.0}), "of bounded memory"
