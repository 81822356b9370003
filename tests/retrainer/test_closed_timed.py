"""How `scripts/bench closed` times answers and judges what was measured; measuring takes hours."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from closed import ONE_BY_ONE, goals_of
from closed_plot import RESULT, document
from closed_tasks import one_by_one

from retrainer.evaluation.generator import Generator


class Counts:
    """How many prompts each call has."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def generate(self, prompts: Sequence[Any], *, max_new_tokens: int) -> list[Any]:
        self.calls.append((len(prompts), max_new_tokens))
        return []


def part(ms: float, **more: Any) -> dict[str, Any]:
    """A rung's figures."""
    return {
        "learnt": 1200, "train_seconds": 1.0, "agreement": 0.7, "interval": [0.6, 0.8], "oracle": 0.6,
        "coverage": 0.5, "risk": 0.03, "requests until certified": 400, "of_the_oracle": 0.9, "ms": ms,
        "saved_usd_per_1000": 0.1, **more,
    }  # fmt: skip


def test_an_answer_is_timed_by_itself() -> None:
    served = Counts()
    one_by_one(cast("Generator", served), [[{"role": "user", "content": str(n)}] for n in range(3)], 7)
    assert served.calls == [(1, 7)] * 3


def test_choosing_is_held_against_decoding_where_both_are_measured() -> None:
    alone = {"timed": ONE_BY_ONE}
    known = {"section-1200-linear": part(2.0, **alone), "section-1200-encoder": part(9.0)}
    known["section-1200-lora"] = part(450.0, **alone)
    found = {
        goal["name"]: (goal["value"], goal["met"]) for goal in goals_of(known | {"section-5000-linear": part(2.0)})
    }
    told = {name: value for name, value in found.items() if "decodes" in name}
    assert told == {
        "section-1200-linear: times as fast as `lora` decodes": (225.0, True),
        "section-1200-encoder: times as fast as `lora` decodes (timed otherwise, to be measured again)": (50.0, False),
    }


def test_a_time_that_was_not_taken_one_by_one_is_marked() -> None:
    shared = document({"figures": {"section-1200-lora": part(450.0)}, "goals": []})
    alone = document({"figures": {"section-1200-lora": part(450.0, timed=ONE_BY_ONE)}, "goals": []})
    assert "| 450.0\\* |" in shared
    assert "passes shared by up to 16" in shared
    assert "| 450.0 |" in alone
    assert "passes shared" not in alone


def test_the_committed_goals_are_those_of_the_committed_figures() -> None:
    result = json.loads(RESULT.read_text())
    assert goals_of(result["figures"]) == result["goals"]
