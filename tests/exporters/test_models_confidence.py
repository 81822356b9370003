"""confidence.json: what it computes, and what of it is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from exporters.models import Calibration, Confidence, CorruptArtefact, Curve
from exporters.models.confidence import FILE, NOVELTY_FILE, SMALLEST, Gate, read
from exporters.models.novelty import Neighbours

LOGPROBS = [math.log(0.8), math.log(0.5)]
CURVE: dict[str, Any] = {"centres": [0.0] * 8, "scales": [1.0] * 8, "weights": [0.0] * 8, "bias": 0.0}


def curve(**changes: Any) -> Curve:
    return Curve(**{**CURVE, "slope": 1.0, "shift": 0.0, **changes})


def written(folder: Path, **changes: Any) -> Path:
    data = {"schema": 1, "method": "logistic", "whole": {**CURVE, "slope": 1.0, "shift": 0.0}, **changes}
    data.setdefault("prefix", data["whole"])
    (folder / FILE).write_text(json.dumps(data))
    return folder


def test_a_map_is_the_logistic_of_scaled_standardised_features() -> None:
    made = curve(centres=[0.5, *[0.0] * 7], scales=[2.0, *[1.0] * 7], weights=[4.0, 0.5, *[0.0] * 6], bias=1.0)
    made = curve(**{f: getattr(made, f) for f in ("centres", "scales", "weights", "bias")}, slope=2.0, shift=-0.5)
    values = (-1.5, 0.2, *[9.0] * 6)
    z = 1.0 + 4.0 * (-1.5 - 0.5) / 2.0 + 0.5 * 0.2
    assert made.score(values) == pytest.approx(z)
    assert made.probability(values) == pytest.approx(1 / (1 + math.exp(-(2.0 * z - 0.5))))


def test_a_feature_far_from_all_that_was_seen_counts_as_one_at_the_edge() -> None:
    made = curve(weights=[1.0, *[0.0] * 7])
    assert made.score((1e9, *[0.0] * 7)) == 6.0
    assert made.score((-1e9, *[0.0] * 7)) == -6.0


def test_without_a_map_it_is_the_exponential_of_the_mean_log_probability(tmp_path: Path) -> None:
    confidence = Confidence.load(tmp_path)
    assert confidence.calibration.method == "mean_probability"
    assert confidence.whole(LOGPROBS, finished=True, novelty=0.0) == pytest.approx(math.sqrt(0.4), abs=1e-6)
    nine = [math.log(0.9)] * 8 + [math.log(0.001)]
    assert confidence.prefix(nine, finished=True, novelty=0.0) == 0.9  # the ninth is not looked at
    assert confidence.novelty([{"role": "user", "content": "anything"}]) == 0.0


def test_whole_answers_and_beginnings_have_maps_of_their_own(tmp_path: Path) -> None:
    whole, prefix = ({**CURVE, "bias": b, "slope": 1.0, "shift": 0.0} for b in (2.0, -2.0))
    confidence = Confidence.load(written(tmp_path, whole=whole, prefix=prefix, prefix_tokens=3))
    assert confidence.prefix_tokens == 3
    assert confidence.whole(LOGPROBS, finished=True, novelty=0.0) == round(1 / (1 + math.exp(-2)), 6)
    assert confidence.prefix(LOGPROBS, finished=True, novelty=0.0) == round(1 / (1 + math.exp(2)), 6)


def test_only_a_novel_input_has_the_confidence_zero() -> None:
    confidence = Confidence(
        Calibration(method="mean_probability", novelty=Gate(threshold=0.6, examples=1)),
        Neighbours.of([[{"role": "user", "content": "a red car"}]]),
    )
    sure, hopeless = [0.0], [-1e9] * 3
    assert confidence.whole(sure, finished=True, novelty=0.61) == 0.0
    assert confidence.prefix(sure, finished=True, novelty=0.61) == 0.0
    assert confidence.whole(sure, finished=True, novelty=0.6) == 1.0
    assert confidence.whole(hopeless, finished=True, novelty=0.6) == SMALLEST
    assert confidence.novel(confidence.novelty([{"role": "user", "content": "quantum chromodynamics"}]))
    assert not confidence.novel(confidence.novelty([{"role": "user", "content": "a red car"}]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2 is not 1; serve it with the version that exported it"),
        ({"prefix_tokens": 0}, "prefix_tokens must be at least 1"),
        ({"whole": None}, "method logistic needs the maps"),
        ({"method": "mean_probability"}, "the other method has none"),
        ({"whole": {**CURVE, "slope": 0.0, "shift": 0.0}}, "scales and slope must be above 0"),
        ({"whole": {**CURVE, "slope": 1.0, "shift": 0.0, "weights": [1.0]}}, "one number for each of 8 features"),
        ({"whole": {**CURVE, "slope": 1.0, "shift": 0.0, "features": ["mean"]}}, "the features are mean"),
        ({"novelty": {"threshold": 3.0, "examples": 1}}, "lies in"),
        ({"surprise": 1}, "unknown field `surprise`"),
    ],
)
def test_a_file_that_can_not_be_used_is_corrupt_and_says_why(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CorruptArtefact, match=said):
        read(written(tmp_path, **changes))


def test_numbers_that_are_not_finite_and_half_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        curve(bias=math.nan)
    (tmp_path / FILE).write_text('{"schema": 1')
    with pytest.raises(CorruptArtefact, match=r"confidence\.json can't be used"):
        Confidence.load(tmp_path)


def test_a_gate_without_its_examples_is_corrupt(tmp_path: Path) -> None:
    written(tmp_path, novelty={"threshold": 0.5, "examples": 3})
    with pytest.raises(CorruptArtefact, match=NOVELTY_FILE):
        Confidence.load(tmp_path)
