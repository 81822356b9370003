"""What becomes of an evaluation: the artefact's confidence, and the thresholds of a selective route."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from retrainer_fakes import example

from exporters.models import Confidence, Generated
from exporters.models.confidence import FILE, NOVELTY_FILE, SMALLEST
from retrainer.data.curate import Example
from retrainer.evaluation.assess import Assessment, assess
from retrainer.evaluation.evaluate import evaluate
from router import score
from router.policy_quality import SelectivePolicy

TRAIN = [example(n) for n in range(1000, 1400)]
SELECTIVE = SelectivePolicy(max_risk=0.05)


def answers(examples: list[Example], *, told: bool = True, always_right: bool = False) -> Any:
    """A student's that knows when it is wrong, in part: sure answers are right, others half of the time."""
    draw = random.Random(7)

    def generate(prompts: Any, *, max_new_tokens: int, drafts: Any, tick: Any) -> list[Generated]:
        found = []
        for made in examples:
            sure = always_right or draw.random() < 0.6
            right = sure or draw.random() < 0.5
            logprobs = tuple(-(0.001 if sure else 0.4) * draw.random() for _ in range(9))
            text = made.answer if right else "wrong"
            found.append(Generated(text=text, finish_reason="stop", tokens=9, logprobs=logprobs if told else ()))
        return found

    return generate


def assessed(folder: Path, count: int, *, selective: SelectivePolicy | None = None, **student: bool) -> Assessment:
    judged = [example(n) for n in range(count)]
    report = evaluate(answers(judged, **student), judged, partial(score, "exact"), max_new_tokens=9)
    return assess(folder, report, judged, TRAIN, selective=selective)


def test_a_students_confidence_is_calibrated_and_put_into_the_artefact(tmp_path: Path) -> None:
    found = assessed(tmp_path, 600)
    assert (found.method, found.reason) == ("logistic", None)
    assert sum(found.records.values()) == 600
    assert found.whole is not None
    assert found.uncalibrated is not None
    assert found.records["choose"] - 6 <= found.whole.n <= found.records["choose"]  # without the novel ones
    assert found.whole.log_loss < found.uncalibrated.log_loss
    assert (found.whole.auroc or 0.0) > 0.85
    assert (found.thresholds, found.start) == ([], None)
    confidence = Confidence.load(tmp_path)
    assert confidence.calibration.novelty == found.novelty
    sure, unsure = ([p] * 9 for p in (-0.0005, -0.3))
    known = {"finished": True, "novelty": 0.3}
    assert confidence.whole(sure, **known) > 0.9 > 0.7 > confidence.whole(unsure, **known)
    assert confidence.prefix(sure, **known) > 0.9 > 0.7 > confidence.prefix(unsure, **known)


def test_the_gate_of_novelty_lets_99_of_100_held_out_records_through(tmp_path: Path) -> None:
    assessed(tmp_path, 600)
    confidence = Confidence.load(tmp_path)
    novel = [confidence.novel(confidence.novelty(example(n).messages)) for n in range(600)]
    assert sum(novel) == 6
    assert confidence.novel(confidence.novelty([{"role": "user", "content": "Which wine goes with lamb?"}]))


def test_a_selective_route_gets_its_thresholds_from_records_that_nothing_was_fitted_on(tmp_path: Path) -> None:
    found = assessed(tmp_path, 600, selective=SELECTIVE)
    assert found.start is not None
    assert found.start.n == found.records["choose"]
    assert found.start.safe
    assert 0.4 < found.start.coverage < 0.75
    assert found.thresholds[0] > found.start.threshold > found.thresholds[-1] == SMALLEST
    assert len(found.shares) == len(found.thresholds)
    assert found.summary()["start"]["threshold"] == found.start.threshold


def test_errors_among_what_would_be_served_are_counted(tmp_path: Path) -> None:
    judged = [example(n) for n in range(600)]
    report = evaluate(answers(judged), judged, partial(score, "exact"), max_new_tokens=9)
    cut = [msgspec.structs.replace(o, reason="cut_off") for o in report.outcomes]
    found = assess(tmp_path, msgspec.structs.replace(report, outcomes=cut), judged, TRAIN, selective=SELECTIVE)
    assert found.start is not None
    assert found.start.errors == found.start.accepted > 50
    assert assessed(tmp_path, 600, selective=SELECTIVE).start == msgspec.structs.replace(found.start, errors=0)


@pytest.mark.parametrize(
    ("count", "student", "reason"),
    [
        (60, {}, "only 60 records"),
        (300, {"always_right": True}, "all score 1"),
        (300, {"told": False}, "only 0 records"),
    ],
)
def test_where_nothing_can_be_fitted_it_is_the_mean_probability_and_says_why(
    tmp_path: Path, count: int, student: dict[str, bool], reason: str
) -> None:
    found = assessed(tmp_path, count, selective=SELECTIVE, **student)
    assert found.method == "mean_probability"
    assert reason in str(found.reason)
    assert found.thresholds[-1] == SMALLEST
    confidence = Confidence.load(tmp_path)
    assert confidence.calibration.reason == found.reason
    assert confidence.whole([-0.5, -0.5], finished=True, novelty=0.0) == pytest.approx(0.606531)
    assert confidence.novel(confidence.novelty([{"role": "user", "content": "Which wine goes with lamb?"}]))


def test_the_same_evaluation_gives_the_same_files(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        assessed(folder, 300)
    for name in (FILE, NOVELTY_FILE):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
