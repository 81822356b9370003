"""The thresholds of selective serving and their shares of alpha, from validation records."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import RouterError
from router.sequential.selective import Selective, even_shares
from router.sequential.selective_shares import BLIND, SMALLEST, STRICTEST, shares_of, thresholds_of


@pytest.mark.parametrize(
    ("count", "starts"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3]),
        (9, [0, 2, 4, 6]),
        (20, [0, 5, 10, 15]),
    ],
)
def test_even_shares_start_at_the_first_and_at_every_fourth_of_the_way(count: int, starts: list[int]) -> None:
    assert even_shares(count) == tuple(1 / len(starts) if k in starts else 0.0 for k in range(count))


def test_thresholds_accept_evenly_growing_shares_of_what_has_any_confidence() -> None:
    confidence = np.concatenate([np.linspace(0.001, 1.0, 1000), np.zeros(500)])
    np.random.default_rng(1).shuffle(confidence)
    found = thresholds_of(confidence)
    assert len(found) == 20
    accepted = [np.mean(confidence[confidence > 0.0] >= t) for t in found]
    assert accepted == pytest.approx(np.linspace(STRICTEST, 1.0, 20).tolist(), abs=0.0011)
    assert found[0] == pytest.approx(0.95, abs=0.001)
    assert found[-1] == SMALLEST == 1e-6


def test_thresholds_by_hand() -> None:
    """Quantiles 0.95 and 0.475 of 0.1, 0.2, ..., 1.0, by interpolation: 0.1 + 0.9 q; then everything."""
    assert thresholds_of(np.arange(1, 11) / 10, 3) == pytest.approx((0.955, 0.5275, SMALLEST))
    assert thresholds_of(np.arange(1, 11) / 10, 2) == pytest.approx((0.955, SMALLEST))
    assert thresholds_of(np.arange(1, 11) / 10, 1) == (SMALLEST,)


def test_equal_confidences_make_one_threshold_and_none_at_all_accept_everything() -> None:
    assert thresholds_of(np.full(50, 0.7)) == (0.7, SMALLEST)
    assert thresholds_of(np.array([0.7])) == (0.7, SMALLEST)
    assert thresholds_of(np.zeros(50)) == (SMALLEST,)
    assert thresholds_of(np.zeros(0)) == (SMALLEST,)
    assert thresholds_of(np.full(50, SMALLEST)) == (SMALLEST,)
    assert thresholds_of(np.full(50, 5e-7)) == (SMALLEST,)
    assert thresholds_of(np.full(50, 1.5)) == (1.0, SMALLEST)
    assert thresholds_of([0, 1, 1]) == (1.0, SMALLEST)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    confidence=st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.0, 1.0)), max_size=60),
    count=st.integers(1, 30),
)
def test_thresholds_fall_strictly_to_the_smallest_and_can_be_tested(confidence: list[float], count: int) -> None:
    found = thresholds_of(np.array(confidence), count)
    assert 1 <= len(found) <= count
    assert all(a > b for a, b in pairwise(found))
    assert found[-1] == SMALLEST
    assert all(type(t) is float for t in found)
    assert Selective.start(found).in_force is None


THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
EVEN = [0.25, 0.25, 0.0, 0.25, 0.25, 0.0]  # the whole part of i x 6 / 4


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_nine_tenths_are_in_proportion_to_growth_and_one_tenth_is_even() -> None:
    """Records at 0.95 (39, none lost), 0.8 (40, two lost by half) and 0.65 (20, ten lost); 0.8 accepts 0.8 itself."""
    confidence = np.array([0.95] * 39 + [0.8] * 40 + [0.65] * 20)
    loss = np.array([0.0] * 39 + [0.0] * 38 + [0.5, 0.5] + [0.0] * 10 + [1.0] * 10)
    growth = [39 * kl(0.5 / 40, 0.1), 79 * kl(1.5 / 80, 0.1), 79 * kl(1.5 / 80, 0.1), 0.0, 0.0, 0.0]  # 11.5/100 > 0.1
    wanted = [0.9 * g / sum(growth) + 0.1 * even for g, even in zip(growth, EVEN, strict=True)]
    found = shares_of(THRESHOLDS, confidence, loss, max_risk=0.1)
    assert found == pytest.approx(wanted)
    assert found[3] == BLIND / 4
    assert sum(found) == pytest.approx(1.0)
    assert all(type(share) is float for share in found)
    assert Selective.start(THRESHOLDS, found).shares == found


def test_a_risk_just_below_the_permitted_one_has_a_share_and_one_just_above_has_none_of_its_own() -> None:
    for lost, some in ((1.0, False), (0.9, True), (1.1, False)):  # (1 + 1/2) / 15 = 0.1
        loss = np.zeros(64)
        loss[50:] = lost / 14
        confidence = np.concatenate([np.full(50, 0.1), np.full(14, 0.95)])
        growth = [14 * kl((lost + 0.5) / 15, 0.1) if some else 0.0, 64 * kl((lost + 0.5) / 65, 0.1)]
        wanted = [0.9 * g / sum(growth) + 0.1 * even for g, even in zip(growth, (0.5, 0.5), strict=True)]
        assert shares_of((0.9, 0.1), confidence, loss, max_risk=0.1) == pytest.approx(wanted, abs=1e-12)


def test_all_is_even_where_nothing_is_known_or_nothing_is_safe() -> None:
    assert shares_of(THRESHOLDS, np.zeros(0), np.zeros(0), max_risk=0.1) == tuple(EVEN)
    assert shares_of(THRESHOLDS, np.full(9, 0.3), np.zeros(9), max_risk=0.1) == tuple(EVEN)
    assert shares_of(THRESHOLDS, np.full(9, 0.95), np.ones(9), max_risk=0.1) == tuple(EVEN)
    assert shares_of(THRESHOLDS, np.zeros(0), np.zeros(0), max_risk=0.7) == tuple(EVEN)
    found = shares_of(THRESHOLDS, np.full(30, 0.95), np.zeros(30), max_risk=0.1)
    assert found == pytest.approx([0.15 + 0.1 * even for even in EVEN])


def test_records_may_be_lists_of_truths_and_whole_numbers() -> None:
    confidence, loss = [1, 1, 0] * 9, [True, False, False, True] + [False] * 23
    wanted = shares_of((1.0, 0.5), np.array(confidence) * 1.0, np.array(loss) * 1.0, max_risk=0.3)
    assert shares_of((1.0, 0.5), confidence, loss, max_risk=0.3) == wanted  # type: ignore[arg-type]
    assert wanted == pytest.approx((0.45 + 0.05, 0.45 + 0.05))
    assert thresholds_of([False, True, True]) == (1.0, SMALLEST)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "m"), [(3, 2), (0, 1), (1, 3)])
def test_confidence_and_loss_of_unequal_lengths_are_refused(n: int, m: int) -> None:
    with pytest.raises(RouterError) as refused:
        shares_of((0.5,), np.ones(n), np.ones(m), max_risk=0.1)
    assert str(refused.value) == f"confidence and loss are one value a record each; got ({n},) and ({m},)"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 300), max_risk=st.sampled_from([0.03, 0.1, 0.4]))
def test_shares_of_any_records_can_be_tested(seed: int, n: int, max_risk: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    loss = (rng.random(n) < (1.0 - confidence) * rng.random()).astype(float)
    thresholds = thresholds_of(confidence)
    found = shares_of(thresholds, confidence, loss, max_risk=max_risk)
    assert len(found) == len(thresholds)
    assert sum(found) == pytest.approx(1.0)
    even = even_shares(len(thresholds))
    assert all(share >= BLIND * blind - 1e-12 for share, blind in zip(found, even, strict=True))
    assert Selective.start(thresholds, found).shares == found
