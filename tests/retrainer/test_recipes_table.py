"""What `scripts/bench recipes` makes of its cells; training them takes hours."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporters.models import signals
from retrainer.evaluation.evaluate import Outcome, Report

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import closed_plot
from recipes_plot import RESULT, TABLE, document, judged_again
from recipes_table import calibration_error, goals, known, table, twins, versions


def cells(**agreements: list[float]) -> dict[str, Any]:
    """Of the task `section`: a recipe's agreements, one a seed."""
    return {
        f"section; {name}; {seed}": {
            "agreement": value, "calibration": None, "tokens_per_second": 20.0 + seed, "speed": 2.0, "bytes": 1,
            "made_by": "x",
        }
        for name, values in agreements.items()
        for seed, value in enumerate(values)
    }  # fmt: skip


def test_rows_are_means_over_seeds_and_tokens_a_second_are_the_speed_times_the_teachers() -> None:
    rows = table(cells(lora=[0.7, 0.74], teacher=[0.8], linear=[0.75]))["section"]
    assert rows["lora"] == {"seeds": 2, "agreement": 0.72, "speed": 2.0, "bytes": 1, "tokens_per_second": 40.0}
    assert rows["teacher"]["tokens_per_second"] == 20.0
    assert "tokens_per_second" not in rows["linear"]
    assert "tokens_per_second" not in table(cells(lora=[0.7]))["section"]["lora"]


def test_calibration_errors_of_several_fields_that_were_held_against_shares_are_unknown() -> None:
    found = known(
        {"fields; lora; 0": {"ece": 0.3}, "section; lora; 0": {"ece": 0.1}, "fields; lora; 1": {"calibration": 0.2}}
    )
    assert found["fields; lora; 0"] == {"calibration": None}
    assert found["section; lora; 0"] == {"calibration": 0.1}
    assert found["fields; lora; 1"] == {"calibration": 0.2}
    assert known(found) == found


def test_a_goal_names_its_task_and_is_judged_on_each_that_has_the_cells() -> None:
    rows = table(cells(teacher=[0.8], pruned=[0.64], encoder=[0.7], **{"lora@int4": [0.6]}))
    found = goals(rows | {"community": rows["section"], "fields": {"teacher": rows["section"]["teacher"]}})
    there, *found = found
    assert (there["name"], there["value"], there["goal"], there["met"]) == ("cells measured", 9, 96, False)
    shares = {goal["name"]: round(goal["value"], 6) for goal in found}
    told = {"pruned half, of the teacher's agreement": 0.8, "pruned half, times the teacher's speed": 2.0}
    told |= {"best int4, of the teacher's agreement": 0.75, "encoder, times the teacher's speed": 2.0}
    both = {f"{task}: {name}": value for task in ("section", "community") for name, value in told.items()}
    assert shares == both | {"community: best int4, agreement": 0.6}
    assert not any(goal["met"] for goal in found if "pruned" not in goal["name"] or "agreement" in goal["name"])


def test_the_page_tells_how_far_equal_graphs_differ_and_which_seeds_are_of_several_versions() -> None:
    made = cells(teacher=[0.8], lora=[0.7, 0.7], full=[0.7], pruned=[0.6])
    for part, changes in {
        "lora; 0": {"speed": 0.8}, "lora; 1": {"speed": 1.3, "made_by": "y"}, "pruned; 0": {"bytes": 2}
    }.items():  # fmt: skip
        made[f"section; {part}"] |= changes
    made["section; full; 0"] |= {"speed": 1.0, "made_by": "z"}
    assert twins(made) == [0.8, 1.0, 1.3]
    assert versions(made, "section") == (3, ["lora"])


def test_the_best_recipe_is_one_of_those_named_before_by_its_mean_over_three_seeds() -> None:
    lucky = {"adapters": [0.99, 0.99, 0.99], "logits": [0.98], "topk": [0.97, 0.70, 0.70]}
    _, goal = goals(table(cells(lora=[0.70, 0.71, 0.72], encoder=[0.80, 0.82, 0.84], **lucky)))
    assert goal["name"] == "section: best recipe (encoder), points above LoRA"
    assert round(goal["value"], 6) == 11.0
    assert goal["met"]
    seeded = lucky | {"logits": [0.98, 0.98, 0.98]}
    _, goal = goals(table(cells(lora=[0.70, 0.71, 0.72], encoder=[0.80, 0.82, 0.84], **seeded)))
    assert goal["name"].startswith("section: best recipe (logits)")


def test_one_seed_of_lora_is_nothing_to_compare_with() -> None:
    (there,) = goals(table(cells(lora=[0.70], encoder=[0.80, 0.82, 0.84])))
    assert there["name"] == "cells measured"


def test_the_page_of_what_recipes_came_to_is_the_committed_results() -> None:
    result = json.loads(RESULT.read_text())
    figures, judged = judged_again(result["figures"])
    assert figures == result["figures"]
    assert judged == result["goals"]
    assert TABLE.read_text() == document(result)


def test_the_page_of_what_closed_answers_came_to_is_the_committed_results() -> None:
    assert closed_plot.PAGE.read_text() == closed_plot.document(json.loads(closed_plot.RESULT.read_text()))


def test_how_sure_a_student_is_of_whole_answers_is_held_against_how_often_it_is_right() -> None:
    def outcome(p: float, value: float | None) -> Outcome:
        whole = signals([math.log(p / 2), math.log(2.0)], finished=True)
        return Outcome(id="x", text="", finish_reason="stop", value=value, reason="", whole=whole)

    report = Report(n=4, agreement=0, lower=0, upper=0, confidence=0.95, valid_json=None, leaked=0, unfinished=0,
                    reasons={}, tokens=0, seconds=0)  # fmt: skip
    told = [outcome(0.95, 1.0), outcome(0.95, 0.0), outcome(0.55, 1.0), outcome(0.55, None)]
    found = calibration_error(msgspec.structs.replace(report, outcomes=told))
    assert found == pytest.approx((2 * 0.45 + 0.45) / 3)
    told[2] = outcome(0.55, 2 / 3)  # of its three fields: the answer as a whole is wrong
    found = calibration_error(msgspec.structs.replace(report, outcomes=told))
    assert found == pytest.approx((2 * 0.45 + 0.55) / 3)
    assert calibration_error(report) is None
