"""Teacher, previous student and candidate are compared on the same records, by the judge too."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from retrainer_fakes import CountedLog, example, training_folder

from collector import Interactions, open_subjects
from exporters.models import Generated
from retrainer.evaluation.asking import Gateway, teacher_again
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.phases_gate import Setting, compare
from retrainer.progress import silent
from retrainer.recipes import Job
from retrainer.scoring import scorer
from router.config import Config

pytestmark = pytest.mark.train  # the encoder is exported

JUDGED = [
    example(n, text=f"<context>Lamps cost {n} EUR.</context> And number {n}?", answer=f"It costs {n}")
    for n in range(30)
]


async def ask(route: str, messages: Sequence[Mapping[str, str]], **_: object) -> str:
    """The teacher answers what it did; the judge calls each pair a draw but where an answer is a guess, and what is
    invented not grounded."""
    if route == "again":
        number = messages[-1]["content"].split()[-1].rstrip("?")
        return f"It costs {number}"
    task, shown = messages[0]["content"], messages[-1]["content"]
    if "single statements" in task:
        return json.dumps({"statements": [{"statement": "s", "supported": "invented" not in shown}]})
    if "questions that" in task:
        return json.dumps({"questions": ["And what?"], "evades": True})
    better = next((a for a, b in (("A", "B"), ("B", "A")) if json.loads(shown)[b] == "a guess"), "tie")
    return json.dumps({"verdict": better})


def report(text: str) -> Report:
    def say(prompts: Sequence[Any], **_: object) -> list[Generated]:
        return [Generated(text=text, finish_reason="stop", tokens=1) for _ in prompts]

    return evaluate(say, JUDGED, scorer("exact", "."), max_new_tokens=8)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    retrain = {"gate": {"teacher_route": "again", "judged": 5}}
    quality = {"reference": "judge", "judge": {"route": "judge"}}
    student = {"recipe": "linear", "base": "none"}
    apart = {"teachers": ["own/m"], "capture": {"rate": 0}}
    config = Config.model_validate(
        {
            "state": str(tmp_path),
            "upstreams": {
                "up": {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True},
                "own": {"base_url": "http://127.0.0.1:1/v1", "api_key": "k"},
            },
            "engines": {"local": {}},
            "routes": {
                "r": {"teachers": ["up/m"], "student": student, "retrain": retrain, "quality": quality},
                "again": apart,
                "judge": apart,
            },
        }
    )
    training_folder(tmp_path / "cycle", tmp_path)
    job = Job(config.state, config.routes["r"], tmp_path / "cycle", silent)
    return Setting(
        config=config, route="r", job=job, gateway=Gateway(config, ask), judged=JUDGED, frozen=(), most_tokens=1
    )


def test_the_teacher_is_asked_again_for_all_records_and_the_judge_looks_at_each_ones_answers(setting: Setting) -> None:
    interactions = Interactions(CountedLog(), open_subjects("sqlite:///:memory:"))
    again = teacher_again(setting.gateway, "again", JUDGED, scorer("exact", "."))
    assert again is not None
    reports = {"quantized": report("invented"), "base": report("a guess"), "teacher": again}
    found = compare(setting, reports, scorer("exact", "."), interactions, [])
    assert found.teacher is not None
    assert (found.teacher.n, found.teacher.agreement) == (30, 1.0), "not only of those that the judge is asked about"
    assert found.judged["quantized"].metrics["judge"].n == 5
    assert (found.judged["quantized"].metrics["judge"].value, found.judged["base"].metrics["judge"].value) == (0.5, 0.0)
    assert found.judged["base"].metrics["faithfulness"].value == 1.0
    assert found.judged["quantized"].metrics["faithfulness"].value == 0.0
    assert found.judged["quantized"].metrics["context_recall"].value == 1.0
    assert found.judged["teacher"].metrics["faithfulness"].value == 1.0
    assert found.judged["teacher"].metrics["judge"].n == 5
    assert "previous" not in found.judged
    assert found.summary()["judged"]["teacher"]["metrics"]["hallucination"]["value"] == 0.0
