"""The interval of a mean score: known values, no jumps, and it holds as often as it says."""

import math
import random

import pytest
from scipy.stats import binom

from retrainer.evaluation.bounds import clopper_pearson_upper, interval, telling, upper_bound, weighted_mean


@pytest.mark.parametrize(
    ("right", "n", "lower", "upper"),
    [(0, 10, 0.0, 0.30850), (10, 10, 0.69150, 1.0), (8, 10, 0.44390, 0.97479), (967, 1000, 0.95396, 0.97721)],
)
def test_the_interval_of_right_and_wrong_is_clopper_and_pearsons(
    right: int, n: int, lower: float, upper: float
) -> None:
    """Known values: R's binom.test(8, 10) gives 0.4439045 and 0.9747893."""
    low, high = interval([1.0] * right + [0.0] * (n - right), confidence=0.95)
    assert low == pytest.approx(lower, abs=2e-4)
    assert high == pytest.approx(upper, abs=2e-4)


def test_no_records_say_nothing() -> None:
    assert interval([], confidence=0.95) == (0.0, 1.0)
    assert (clopper_pearson_upper(10, 10, level=0.9), clopper_pearson_upper(0, 0, level=0.9)) == (1.0, 1.0)


def test_fractions_get_hoeffding_and_bentkus_bound() -> None:
    n, mean = 200, 0.05
    found = upper_bound([0.1, 0.0] * (n // 2), level=0.9)
    entropy = mean * math.log(mean / found) + (1 - mean) * math.log((1 - mean) / (1 - found))
    p = min(math.exp(-n * entropy), math.e * binom.cdf(10, n, found))
    assert p == pytest.approx(0.1, rel=1e-3)
    assert mean < found < mean + math.sqrt(math.log(10) / (2 * n))  # tighter than Hoeffding's


def test_one_fraction_among_perfect_scores_costs_no_more_than_a_wrong_answer() -> None:
    perfect, _ = interval([1.0] * 300, confidence=0.95)
    nearly, _ = interval([1.0] * 299 + [0.999], confidence=0.95)
    half, _ = interval([1.0] * 299 + [0.5], confidence=0.95)
    wrong, _ = interval([1.0] * 299 + [0.0], confidence=0.95)
    assert perfect == pytest.approx(0.025 ** (1 / 300))
    assert perfect > nearly > perfect - 0.0005
    assert nearly > half >= wrong - 0.001
    assert half > 0.98, "Hoeffding's own bound would be 92.0%"


def test_a_group_counts_as_one_record() -> None:
    scores = [1.0] * 54 + [0.0] * 6
    pairs = [str(n // 2) for n in range(60)]
    assert interval(scores, confidence=0.95, groups=pairs) == interval(scores[::2], confidence=0.95)
    thirds = [1.0, 1.0, 1 / 3, 1 / 3] * 15
    assert interval(thirds, confidence=0.95, groups=pairs) == pytest.approx(interval(thirds[::2], confidence=0.95))


def test_the_interval_is_around_the_mean_of_the_records_where_groups_are_of_different_sizes() -> None:
    """One conversation of 20 wrong answers beside 20 right ones: half of the records, not a twentieth."""
    values, groups = [0.0] * 20 + [1.0] * 20, ["a"] * 20 + [str(n) for n in range(20)]
    low, high = interval(values, confidence=0.95, groups=groups)
    alone, _ = interval([0.0] + [1.0] * 20, confidence=0.95)
    assert low == pytest.approx(0.5 - (20 / 21 - alone))
    assert low < 0.5 < high
    perfect, _ = interval([1.0] * 40, confidence=0.95, groups=groups)
    assert perfect == pytest.approx(0.025 ** (1 / 21))


@pytest.mark.parametrize("scores", [(0.0, 1.0, 1.0, 1.0, 1.0), (0.0, 1 / 3, 1.0, 1.0, 1.0)])
@pytest.mark.parametrize(("sizes", "alike"), [((1,), True), ((4,), True), ((1, 1, 1, 7), False)])
def test_a_bound_holds_as_often_as_it_says_also_where_groups_are_of_one_score(
    scores: tuple[float, ...], sizes: tuple[int, ...], alike: bool
) -> None:
    draw = random.Random(5)
    mean, held, runs = sum(scores) / len(scores), 0, 200
    for _ in range(runs):
        values: list[float] = []
        groups: list[str] = []
        for group in range(40):
            size = draw.choice(sizes)
            values += [draw.choice(scores)] * size if alike else draw.choices(scores, k=size)
            groups += [str(group)] * size
        held += upper_bound([1.0 - v for v in values], level=0.9, groups=groups) >= 1.0 - mean
    assert held >= 0.88 * runs


def test_equal_weights_change_nothing() -> None:
    draw = random.Random(3)
    values, groups = [draw.choice((0.0, 0.5, 1.0)) for _ in range(60)], [str(draw.randrange(40)) for _ in range(60)]
    plain = interval(values, confidence=0.95, groups=groups)
    assert interval(values, confidence=0.95, groups=groups, weights=[3.0] * 60) == pytest.approx(plain)
    halves = [float(int(group) < 20) for group in groups]
    exact = interval(halves, confidence=0.95, groups=groups)
    assert interval(halves, confidence=0.95, groups=groups, weights=[0.1] * 60) == pytest.approx(exact, abs=1e-9)
    assert telling(groups, [3.0] * 60) == pytest.approx(len(set(groups)))
    assert (weighted_mean([]), telling([], [])) == (0.0, 0.0)


def test_without_a_loss_records_tell_as_much_as_their_weights_of_the_heaviest() -> None:
    """By hand: z is 0 in all of n, so 1 - level^(1/n), over the mean of w / max(w)."""
    weights = [10.0] * 50 + [1.0] * 150
    found = upper_bound([0.0] * 200, level=0.9, weights=weights)
    assert found == pytest.approx((1 - 0.1 ** (1 / 200)) * 2000 / 650)
    assert telling([str(n) for n in range(200)], weights) == pytest.approx(65.0)
    assert found == pytest.approx(1 - 0.1 ** (1 / 65), rel=0.02)
    assert weighted_mean([1.0] * 50 + [0.0] * 150, weights) == pytest.approx(500 / 650)


@pytest.mark.parametrize("light", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("heavy", [0.0, 0.02, 0.1])
def test_a_weighted_bound_holds_as_often_as_it_says_wherever_the_losses_are(heavy: float, light: float) -> None:
    """Half of the requests are answered once in ten times, and weigh ten."""
    draw, held, runs = random.Random(7), 0, 300
    for _ in range(runs):
        weights, losses = [], []
        for _ in range(600):
            easy = draw.random() < 0.5
            if easy and draw.random() > 0.1:
                continue
            weights.append(10.0 if easy else 1.0)
            losses.append(float(draw.random() < (heavy if easy else light)))
        held += upper_bound(losses, level=0.9, weights=weights) >= (heavy + light) / 2
    assert held >= 0.88 * runs
