"""What a data set tells people of itself."""

from typing import Any

import msgspec
import pytest
from retrainer_fakes import CountedLog, fill, interaction, teacher

from collector import Interactions, SubjectKeys
from retrainer import CycleState, Request, told_of
from retrainer.data.dataset import build
from retrainer.data.options import Options
from retrainer.data.told import told
from router.policy_data import DataPolicy

CONSISTENCY = {"asked": 12, "compared": 10, "agreement": 0.925, "contradicted": 1, "failed": {"timeout": 1, "http": 1}}


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    even = {"mean": 1.0, "least": 1.0, "most": 1.0, "effective": 1.0}
    assert told({}) == {}
    assert told({"weights": even, "consistency": None, "dropped": {}, "corrections": {"given": 2, "found": 2}}) == {}
    assert told({"labels": {"train": {}, "test": {}}}) == {"answers against production's": "open text, not compared"}


def test_the_most_shifted_field_the_weights_and_the_teachers_word_are_told() -> None:
    train = {
        "kind": {"values": 3, "distance": 0.02, "missing": 0},
        "place": {"values": 53, "distance": 0.131, "missing": 2},
    }
    weights = {"least": 0.8, "most": 8.0, "effective": 0.5, "held_out_least": 1.0, "held_out_effective": 1.0}
    made = {
        "labels": {"train": train, "test": {"place": {"values": 53, "distance": 0.05, "missing": 9}}},
        "weights": weights,
        "consistency": CONSISTENCY,
    }
    assert told(made) == {
        "answers against production's": "place (the most shifted of 2 fields): 13.1% apart in train, 5.0% apart in "
        "test; 2 of 53 values are not learnt",
        "weights": "learnt 0.80 to 8.00, which tell as much as 50% of the examples would evenly",
        "teacher asked again": "agrees with itself by 92.5% on 10 of 12 prompts, 1 contradicted, 2 without an answer",
    }
    nothing = {**CONSISTENCY, "compared": 0, "agreement": None}
    assert told({"consistency": nothing}) == {
        "teacher asked again": "nothing could be compared of 12 prompts, 2 without an answer"
    }


def test_a_cycle_tells_it_of_a_data_set_that_was_made(log: CountedLog, keys: SubjectKeys) -> None:
    answered = [interaction(n, answers=(teacher(f"kind {n % 3}"),)) for n in range(200)]
    held_back = [interaction(n, answered=0.25, answers=(teacher("kind 0"),)) for n in range(200, 260)]
    fill(log, [*answered, *held_back])
    made = build(Interactions(log, keys), "colours", max_examples=1000)
    phases = {"dataset": msgspec.to_builtins(made.manifest)}
    state = CycleState(request=Request(cycle_id="c", route="colours"), policy={}, started_at=1.0, phases=phases)
    labels, weights = told_of(state)
    assert labels.startswith("answers against production's: answer: ")
    assert weights.startswith("weights: learnt 0.")
    assert "; held out 0." in weights


@pytest.mark.parametrize(("policy", "kept"), [({}, 100), ({"most_alike": None}, 150), ({"most_alike": 7}, 7)])
def test_a_flood_of_the_same_is_cut_where_nobody_says_otherwise(
    log: CountedLog, keys: SubjectKeys, policy: dict[str, Any], kept: int
) -> None:
    """A probe that asks with another number each time, in a conversation that trains."""
    text = "please tell me the colour of the very large red car that stands in the garden, number {}"
    fill(log, [interaction(n) for n in range(200)])
    asked = [{"messages": [{"role": "user", "content": text.format(n)}]} for n in range(150)]
    fill(log, [interaction(1000 + n, cluster="c1", request=request) for n, request in enumerate(asked)])
    how = Options(policy=DataPolicy.model_validate(policy))
    made = build(Interactions(log, keys), "colours", max_examples=1000, options=how)
    assert sum("very large" in e.messages[-1]["content"] for e in made.train) == kept


def test_what_was_left_out_for_a_secret_is_told_with_samples_and_what_to_do() -> None:
    dropped = {"secret": {"count": 3, "samples": [{"id": "r4", "offset": 4}, {"id": "r9", "offset": 9}]}}
    said = told({"dropped": dropped})["answers with secrets"]
    assert said.startswith("3 dropped, which hold a key, password or login that their request doesn't (r4, r9, ...)")
    assert "retrain.data.secrets: keep" in said
    assert told({"dropped": {"duplicate": dropped["secret"]}}) == {"left out": "duplicate 3"}
