"""From signals to probabilities, on records whose true probabilities are known."""

import math
import random

import msgspec
import pytest

from exporters.models import FEATURES, Confidence, prefix_signals, signals
from retrainer.evaluation.calibrate import LEAST_RECORDS, Labelled, Part, auroc, fit, lacking, quality


def drawn(count: int, *, seed: int = 1) -> tuple[list[Labelled], list[float]]:
    """Records of a student that is far too sure of itself, with the true probabilities that they are right."""
    draw = random.Random(seed)
    records, truth = [], []
    for number in range(count):
        doubt = draw.random()
        logprobs = [-0.02 * doubt * draw.random() - 1e-4 for _ in range(12)]
        novelty = draw.uniform(0.2, 0.8)
        mean = sum(logprobs) / 12
        p = 1 / (1 + math.exp(-(4.0 + 600.0 * mean - 3.0 * (novelty - 0.5))))
        records.append(
            Labelled(
                group=f"g{number}",
                whole=signals(logprobs, finished=True),
                prefix=prefix_signals(logprobs, finished=True),
                novelty=novelty,
                value=float(draw.random() < p),
            )
        )
        truth.append(p)
    return records, truth


RECORDS, TRUTH = drawn(3000)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_map_improves_the_log_loss_on_records_that_it_was_not_fitted_on(prefix: bool) -> None:
    curve, plain = fit(RECORDS, prefix=prefix), Confidence()
    unseen = [(r, p) for r, p in zip(RECORDS, TRUTH, strict=True) if r.part is Part.CHOOSE]
    found = [curve.probability((r.prefix if prefix else r.whole).features(r.novelty)) for r, _ in unseen]
    values = [r.value for r, _ in unseen]
    fitted = quality(found, values)
    before = quality([plain.of(r.whole, novelty=0.0) for r, _ in unseen], values)
    best = quality([p for _, p in unseen], values)
    assert fitted is not None
    assert before is not None
    assert best is not None
    assert fitted.log_loss < before.log_loss - 0.1
    assert fitted.log_loss < best.log_loss + (0.03 if prefix else 0.01)
    assert fitted.brier < before.brier
    for low in (0.0, 0.25, 0.5, 0.75):  # and it means what it says
        among = [(f, v) for f, v in zip(found, values, strict=True) if low <= f < low + 0.25]
        assert sum(f for f, _ in among) / len(among) == pytest.approx(sum(v for _, v in among) / len(among), abs=0.08)


def test_a_map_rises_with_its_score_so_it_keeps_the_order() -> None:
    curve = fit(RECORDS)
    rows = sorted((curve.score(r.whole.features(r.novelty)), r) for r in RECORDS[:300])
    found = [curve.probability(r.whole.features(r.novelty)) for _, r in rows]
    assert found == sorted(found)
    assert len(set(found)) == 300  # and makes no two records alike


def test_scaling_takes_out_the_optimism_of_a_fit() -> None:
    """Records to scale on that are wrong where those to fit on were right turn no map around, but flatten it."""
    turned = [msgspec.structs.replace(r, value=1 - r.value) if r.part is Part.SCALE else r for r in RECORDS]
    honest, flattened = fit(RECORDS), fit(turned)
    assert flattened.weights == honest.weights
    assert 0.0 < flattened.slope < 0.1 < 0.7 < honest.slope < 1.3


def test_what_is_chosen_on_is_not_looked_at() -> None:
    changed = [msgspec.structs.replace(r, value=1.0) if r.part is Part.CHOOSE else r for r in RECORDS]
    assert fit(changed) == fit(RECORDS)
    parts = [sum(r.part is part for r in RECORDS) / len(RECORDS) for part in Part]
    assert parts == pytest.approx([0.4, 0.2, 0.4], abs=0.03)


def test_records_of_one_group_are_on_one_side() -> None:
    records = [msgspec.structs.replace(r, group=f"g{n % 7}") for n, r in enumerate(RECORDS[:70])]
    assert all(len({r.part for r in records if r.group == f"g{n}"}) == 1 for n in range(7))


def test_scores_with_fractions_are_learnt_as_expected_scores() -> None:
    halves = [msgspec.structs.replace(r, value=0.5 if r.value else 0.1) for r in RECORDS]
    curve = fit(halves)
    unseen = [r for r in halves if r.part is Part.CHOOSE]
    mean = sum(curve.probability(r.whole.features(r.novelty)) for r in unseen) / len(unseen)
    assert mean == pytest.approx(sum(r.value for r in unseen) / len(unseen), abs=0.02)


def test_a_feature_that_never_changes_counts_nothing() -> None:
    curve = fit(RECORDS)
    assert (curve.weights[4], curve.scales[4]) == (pytest.approx(0.0, abs=1e-9), 1.0)  # all answers have 12 tokens


def test_no_feature_may_count_the_wrong_way_round() -> None:
    """Here the likelier answers, and those to the stranger inputs, were the wrong ones."""
    turned = [msgspec.structs.replace(r, value=1 - r.value) for r in RECORDS]
    weights = dict(zip(FEATURES, fit(turned).weights, strict=True))
    assert min(weights[name] for name in ("mean", "least", "first", "total", "finished")) >= 0.0
    assert max(weights["unsure"], weights["novelty"]) <= 0.0
    assert weights["mean"] == weights["total"] == weights["novelty"] == 0.0
    assert dict(zip(FEATURES, fit(RECORDS).weights, strict=True))["novelty"] < -0.2


def test_few_wrong_records_still_give_finite_numbers() -> None:
    nearly = [msgspec.structs.replace(r, value=float(n % 40 != 0)) for n, r in enumerate(RECORDS[:400])]
    found = [fit(nearly).probability(r.whole.features(r.novelty)) for r in nearly]
    assert 0.9 < sum(found) / len(found) < 1.0


def test_too_few_records_and_records_of_one_outcome_are_told() -> None:
    few = RECORDS[: LEAST_RECORDS - 1]
    assert lacking(few) == "only 99 records with a score and log probabilities, fewer than 100"
    assert lacking(RECORDS[:LEAST_RECORDS]) is None
    right = [msgspec.structs.replace(r, value=1.0) for r in RECORDS[:200]]
    assert "all score 1, so nothing tells right from wrong" in str(lacking(right))
    rare = [msgspec.structs.replace(r, value=float(r.part is Part.FIT)) for r in RECORDS[:200]]
    assert "to fit on all score 1" in str(lacking(rare))
    with pytest.raises(ValueError, match="only 99 records"):
        fit(few)


def test_the_auroc_counts_pairs_in_the_right_order() -> None:
    assert auroc([0.9, 0.8, 0.3, 0.8], [1.0, 1.0, 0.0, 0.0]) == pytest.approx(3.5 / 4)
    assert auroc([0.9, 0.8], [1.0, 1.0]) is None


def test_the_quality_is_what_it_is_by_hand() -> None:
    found = quality([0.8, 0.4], [1.0, 0.0])
    assert found is not None
    assert found.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert found.brier == pytest.approx((0.04 + 0.16) / 2)
    assert quality([], []) is None
