"""The order in which confidence thresholds are tested."""

import random

import pytest

from exporters.models.confidence import SMALLEST
from retrainer.evaluation.bounds import clopper_pearson_upper
from retrainer.evaluation.thresholds import LEVEL, Record, choose, measure


def ladder(count: int = 1000, *, wrong_below: float = 0.4) -> tuple[list[float], list[float]]:
    """Confidences from 0.001 to 1, wrong below one of them."""
    confidences = [(n + 1) / count for n in range(count)]
    return confidences, [float(c < wrong_below) for c in confidences]


def test_the_start_is_the_loosest_safe_threshold_and_the_tests_go_on_to_all_that_is_not_novel() -> None:
    confidences, losses = ladder()
    found = choose(confidences, losses, max_risk=0.03)
    # 601 right answers from 0.4 on; below, as many wrong ones as keep the 90% bound at 3%.
    extra = max(k for k in range(100) if clopper_pearson_upper(k, 601 + k, level=LEVEL) <= 0.03)
    assert extra > 5
    assert found.start.threshold == pytest.approx(0.4 - extra / 1000)
    assert found.start.safe
    assert found.start.accepted == 601 + extra
    assert found.values[0] == pytest.approx(0.95, abs=0.002)  # what a twentieth of the records reaches
    assert found.values[-1] == SMALLEST
    assert found.values == sorted(found.values, reverse=True)
    assert len(found.values) == len(found.shares) == 20
    gaps = [a - b for a, b in zip(found.values, found.values[1:], strict=False)]
    assert max(gaps) - min(gaps) < 0.003  # even quantiles of the records
    assert sum(found.shares) == pytest.approx(1.0)
    best = found.values[found.shares.index(max(found.shares))]
    assert 0.4 <= best <= 0.4 + 1.1 * max(gaps)  # where evidence grows fastest: nearly all right answers, no wrong ones


def test_the_order_of_the_records_does_not_matter() -> None:
    pairs = list(zip(*ladder(), strict=True))
    expected = choose(*map(list, zip(*pairs, strict=True)), max_risk=0.03)
    random.Random(3).shuffle(pairs)
    assert choose(*map(list, zip(*pairs, strict=True)), max_risk=0.03) == expected


def test_a_good_student_begins_where_everything_that_is_not_novel_is_served() -> None:
    found = choose([0.0] * 10 + [0.9] * 500, [1.0] * 10 + [0.0] * 500, max_risk=0.03)
    assert found.values == [0.9, SMALLEST]
    assert found.shares[1] <= found.shares[0]
    assert (found.start.n, found.start.accepted, found.start.risk) == (510, 500, 0.0)
    assert found.start.coverage == pytest.approx(500 / 510)


def test_without_a_safe_threshold_it_is_the_strictest_with_five_percent() -> None:
    confidences, losses = ladder(1000, wrong_below=2.0)
    found = choose(confidences, losses, max_risk=0.03)
    assert not found.start.safe
    assert found.start.threshold == pytest.approx(0.951)
    assert found.start.accepted == 50
    assert found.values[-1] == SMALLEST
    assert len([share for share in found.shares if share > 0.0]) == 4  # nothing grows: even over the usual starts


@pytest.mark.parametrize(("confidences", "losses"), [([], []), ([0.0, 0.0], [1.0, 0.0])])
def test_without_a_record_that_is_not_novel_only_the_last_threshold_is_left(
    confidences: list[float], losses: list[float]
) -> None:
    found = choose(confidences, losses, max_risk=0.03)
    assert (found.values, found.shares) == ([SMALLEST], [1.0])
    assert not found.start.safe
    assert (found.start.accepted, found.start.risk_upper) == (0, 1.0)


def test_coverage_and_risk_have_clopper_pearsons_one_sided_bounds() -> None:
    """Known values: 1 - 0.1^(1/100) for no hit of 100; R's binom.test(8, 10, conf.level = .8) gives 0.5503, 0.9455."""
    assert clopper_pearson_upper(0, 100, level=LEVEL) == pytest.approx(1 - 0.1**0.01)
    assert clopper_pearson_upper(8, 10, level=LEVEL) == pytest.approx(0.9455, abs=1e-4)
    records = [Record(0.9, 0.0, str(n)) for n in range(8)] + [Record(0.1, 1.0, str(n)) for n in (8, 9)]
    found = measure(records, 0.5, max_risk=0.3)
    assert found.coverage_lower == pytest.approx(1 - clopper_pearson_upper(2, 10, level=LEVEL))
    assert found.risk_upper == pytest.approx(1 - 0.1 ** (1 / 8))
    assert found.safe == (found.risk_upper <= 0.3)


def test_records_that_resemble_each_other_make_a_threshold_less_sure() -> None:
    confidences, losses = ladder()
    alone = choose(confidences, losses, max_risk=0.03).start
    alike = choose(confidences, losses, max_risk=0.03, groups=[str(n // 5) for n in range(1000)]).start
    assert alike.safe
    assert alike.threshold > alone.threshold
    assert alike.coverage_lower < alone.coverage_lower


def test_records_that_stand_for_many_requests_count_as_many() -> None:
    """The student was asked for the half that is easy, so that its teacher answered a tenth of it alone."""
    sure, unsure = [0.9] * 50, [0.1] * 500
    losses = [0.0] * 50 + [1.0] * 500
    plain = choose(sure + unsure, losses, max_risk=0.1).start
    found = choose(sure + unsure, losses, max_risk=0.1, weights=[10.0] * 50 + [1.0] * 500).start
    assert plain.coverage == pytest.approx(50 / 550)
    assert (found.threshold, found.accepted, found.risk) == (0.9, 50, 0.0)
    assert found.coverage == pytest.approx(0.5)
    assert plain.coverage_lower < found.coverage_lower < 0.5
    assert found.risk_upper == plain.risk_upper, "the same records, all of one weight"


def test_a_loss_weighs_as_much_as_the_requests_that_it_stands_for() -> None:
    confidences, losses = [0.9] * 400, [1.0] * 2 + [0.0] * 398
    light = choose(confidences, losses, max_risk=0.05, weights=[1.0] * 300 + [10.0] * 100).start
    heavy = choose(confidences, losses, max_risk=0.05, weights=[10.0] * 100 + [1.0] * 300).start
    assert light.risk == pytest.approx(2 / 1300)
    assert heavy.risk == pytest.approx(20 / 1300)
    assert light.safe
    assert not heavy.safe
