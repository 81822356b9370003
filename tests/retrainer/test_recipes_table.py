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
from recipes_plot import RESULT, TABLE, document
from recipes_table import calibration_error, goals, table


def cells(**agreements: list[float]) -> dict[str, Any]:
    """Of the task `section`: a recipe's agreements, one a seed."""
    return {
        f"section; {name}; {seed}": {
            "agreement": value,
            "calibration_error": None,
            "tokens_per_second": 20.0,
            "made_by": "x",
        }
        for name, values in agreements.items()
        for seed, value in enumerate(values)
    }


def test_rows_are_means_over_seeds_and_closed_students_are_not_timed_in_tokens() -> None:
    rows = table(cells(lora=[0.7, 0.74], linear=[0.75]))["section"]
    assert rows["lora"] == {"seeds": 2, "agreement": 0.72, "tokens_per_second": 20.0}
    assert rows["linear"] == {"seeds": 1, "agreement": 0.75, "answers_per_second": 20.0}


def test_the_best_recipe_is_one_of_those_named_before_by_its_mean_over_three_seeds() -> None:
    lucky = {"adapters": [0.99, 0.99, 0.99], "logits": [0.98], "topk": [0.97, 0.70, 0.70]}
    (goal,) = goals(table(cells(lora=[0.70, 0.71, 0.72], encoder=[0.80, 0.82, 0.84], **lucky)))
    assert goal["name"] == "best recipe on section (encoder): points above LoRA"
    assert round(goal["value"], 6) == 11.0
    assert goal["met"]
    seeded = lucky | {"logits": [0.98, 0.98, 0.98]}
    (goal,) = goals(table(cells(lora=[0.70, 0.71, 0.72], encoder=[0.80, 0.82, 0.84], **seeded)))
    assert goal["name"].startswith("best recipe on section (logits)")


def test_one_seed_of_lora_is_nothing_to_compare_with() -> None:
    assert goals(table(cells(lora=[0.70], encoder=[0.80, 0.82, 0.84]))) == []


def test_the_page_of_what_recipes_came_to_is_the_committed_results() -> None:
    result = json.loads(RESULT.read_text())
    assert table(result["figures"]["cells"]) == result["figures"]["rows"]
    assert TABLE.read_text() == document(result)


def test_the_page_of_what_closed_answers_came_to_is_the_committed_results() -> None:
    assert closed_plot.PAGE.read_text() == closed_plot.document(json.loads(closed_plot.RESULT.read_text()))


def test_how_sure_a_student_is_of_whole_answers_is_held_against_how_often_it_is_right() -> None:
    def outcome(p: float, value: float | None) -> Outcome:
        whole = signals([math.log(p / 2), math.log(2.0)], finished=True)
        return Outcome(id="x", text="", finish_reason="stop", value=value, reason="", whole=whole)

    report = Report(n=4, agreement=0, lower=0, upper=0, confidence=0.95, valid_json=None, leaked=0, unfinished=0,
                    reasons={}, tokens=0, seconds=0)  # fmt: skip
    told = [outcome(0.95, 1.0), outcome(0.95, 2 / 3), outcome(0.55, 1.0), outcome(0.55, None)]
    found = calibration_error(msgspec.structs.replace(report, outcomes=told))
    assert found == pytest.approx((2 * 0.45 + 0.45) / 3)
    assert calibration_error(report) is None
