"""Are a teacher's answers few, and in which form are they written?"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from distil_jobs import job
from hypothesis import given
from hypothesis import strategies as st

from exporters.models.closed_form import Field, Form
from retrainer.data.closed import Choices, detect, parse
from retrainer.recipes import RECIPES
from retrainer.recipes.closed import shared_beginning, temperature

SPACED = '```json\n{ "kind" : "bill",\n  "urgent": true }\n```'


def test_labels_are_one_field_without_a_name() -> None:
    found = detect(["billing", "refund", "billing", "refund", "other", "other"])
    assert found.form == Form(pieces=("", ""), fields=(Field(name="", values=("billing", "refund", "other")),))
    assert (found.covered, found.verbatim, found.counts) == (6, 6, [[2, 2, 2]])
    assert found.summary()["template"] == "<answer>"


def test_the_teachers_order_spacing_and_fence_are_the_form() -> None:
    answers = [SPACED, SPACED.replace("true", "false"), SPACED.replace("bill", "r\\u00fcck")] * 3
    found = detect(answers)
    assert found.form is not None
    assert found.form.pieces == ('```json\n{ "kind" : ', ',\n  "urgent": ', " }\n```")
    assert found.form.names == ("kind", "urgent")
    assert found.form.fields[1].values == ("true", "false")
    known = Choices(found.form)
    for answer in answers:
        chosen = known.of(answer)
        assert chosen is not None
        assert found.form.write(chosen) == answer


def test_nested_fields_have_their_path_and_lists_are_one_value() -> None:
    taken = parse('Sure: {"a": {"b": 1, "c": {}}, "d": ["x", "y"], "e": null}')
    assert taken.names == ("a.b", "a.c", "d", "e")
    assert taken.values == ("1", "{}", '["x", "y"]', "null")
    assert taken.pieces[0] == 'Sure: {"a": {"b": '


def test_an_answer_in_other_words_is_covered_and_not_verbatim_and_an_unknown_value_is_outside() -> None:
    answers = ['{"a": "x"}', '{"a": "y"}'] * 30 + ['{"a":"x"}'] * 2 + ['{"a": "never seen again"}', "Sorry."]
    found = detect(answers)
    assert found.form is not None
    assert (found.answers, found.covered, found.verbatim) == (64, 62, 60)
    known = Choices(found.form)
    assert known.of('{"a":"x"}') == (0,)
    assert known.of('{"a": "never seen again"}') is None
    assert known.of("Sorry.") is None
    assert known.of('{"b": "x"}') is None


def test_answers_that_are_spaced_in_many_ways_are_few_all_the_same() -> None:
    answers = [json.dumps({"a": "xy"[n % 2]}, indent=n % 5) for n in range(50)]
    found = detect([*answers, *(f"Sure!\n{answer}" for answer in answers[:5])])
    assert found.form is not None
    assert found.form.pieces[0].startswith("{")
    assert (found.covered, found.verbatim) == (55, 10)


def test_a_field_that_is_sometimes_missing_makes_few_whole_answers() -> None:
    answers = ['{"a": "x"}', '{"a": "x", "b": 1}', '{"a": "y"}'] * 10
    found = detect(answers)
    assert found.form is not None
    assert found.form.names == ("",)
    assert found.covered == 30
    assert Choices(found.form).of('{"a": "x", "b": 1}') == (1,)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "there is no answer"),
        ([f"Dear customer {n}, ..." for n in range(50)], "no value of an answer occurs twice"),
        ([json.dumps({"kind": "a", "summary": f"text {n}"}) for n in range(50)], "occurs twice"),
        (["a"] * 40 + [f"b{n}" for n in range(10)], "cover 80.0% of the answers, less than 90%"),
        ([str(n // 2) for n in range(2400)], "an answer takes 1200 values"),
        (
            [json.dumps({"label": "ab"[n % 2]}) + f"\nIt is about number {n}." for n in range(200)],
            "what stands beside the values differs: the same words in 0.5%, less than 90%",
        ),
    ],
)
def test_open_answers_are_told_with_the_reason(answers: list[str], reason: str) -> None:
    found = detect(answers)
    assert found.form is None
    assert found.reason is not None
    assert reason in found.reason


_leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.lists(st.integers(), max_size=3)
_object = st.dictionaries(st.text(max_size=4), st.recursive(_leaf, lambda x: st.dictionaries(st.text(max_size=3), x)))


@given(_object, st.text(max_size=5), st.sampled_from([None, 1, 3]), st.booleans())
def test_an_answer_taken_apart_is_put_together_to_the_byte(
    data: dict[str, object], before: str, indent: int | None, ascii_only: bool
) -> None:
    answer = before + json.dumps(data, indent=indent, ensure_ascii=ascii_only) + "\n."
    taken = parse(answer)
    form = Form(
        pieces=taken.pieces,
        fields=tuple(Field(name=n, values=(v,)) for n, v in zip(taken.names, taken.values, strict=True)),
    )
    assert form.write([0] * len(form.fields)) == answer


def test_what_all_prompts_begin_with_is_shared_but_never_their_last_message() -> None:
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
    assert shared_beginning([[system, user], [system, user]]) == 1
    assert shared_beginning([[system, user], [user]]) == 0
    assert shared_beginning([[system, user, user], [system, {**user, "content": "v"}, user]]) == 1


def test_the_temperature_makes_probabilities_as_large_as_the_share_that_is_right() -> None:
    """Logits of 8 for values that are right in 3 of 4: softmax at T gives 0.75 where 8 / T = ln 3."""
    logits = np.zeros((400, 2))
    logits[:, 0] = 8.0
    chosen = np.array([0, 0, 0, 1] * 100)
    found, loss = temperature(logits, chosen)
    assert found == pytest.approx(8.0 / math.log(3.0), rel=1e-3)
    assert loss == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-3)
    assert temperature(logits[:19], chosen[:19]) == (1.0, 0.0)  # too few to say


@pytest.mark.train
def test_an_encoder_without_a_record_to_be_calibrated_on_learns_all_the_same(tmp_path: Path) -> None:
    made = job(tmp_path, tmp_path, "encoder", retrain={"closed": {"epochs": 0}})
    assert made.data.validation == []
    recipe = RECIPES["encoder"](made)
    assert recipe.train()["temperatures"] == [1.0]
    prompts = [e.messages for e in made.data.train[:40]]
    said = [a.text for a in recipe.trained().generate(prompts, max_new_tokens=1)]
    assert sum(s == e.answer for s, e in zip(said, made.data.train, strict=False)) > 30
