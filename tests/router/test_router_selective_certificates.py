"""Certificates of selective serving: when they are given, kept, lost, taken back and come again."""

import math
from typing import Any

import numpy as np
import pytest

from router.sequential import threshold
from router.sequential.mixture import log_mean
from router.sequential.selective import Selective

LOG_20 = math.log(20.0)
G = [0.1 * 9 ** (j / 7) for j in range(8)]  # with max_risk 1/2, a clean pair makes 1 + g of a bet, a lost one 1 - g


def holding(
    values: tuple[float, ...], shares: tuple[float, ...] = (), certified: tuple[int, ...] = (), **counts: Any
) -> Selective:
    """Thresholds 0.9, 0.8, ... with these M, spread evenly over their bets; `certified`: numbers, from 1."""
    start = Selective.start(tuple((9 - k) / 10 for k in range(len(values))), shares)
    tested = (
        threshold.Tested(old.threshold, (math.log(value),) * 8, k + 1 in certified, **counts)
        for k, (old, value) in enumerate(zip(start.tested, values, strict=True))
    )
    return Selective(tuple(tested), start.shares)


def after(state: Selective, losses: list[float], confidence: float = 1.0, **rule: float) -> Selective:
    n = len(losses)
    rule = {"max_risk": 0.5, "alpha": 0.05, **rule}
    return state.fold(np.full(n, confidence), np.array(losses), np.ones(n), **rule)


def looked_at(state: Selective, alpha: float = 0.05) -> list[bool]:
    """Who is certified once a pair came that no threshold accepts."""
    return [one.certified for one in after(state, [1.0], confidence=0.0, alpha=alpha).tested]


@pytest.mark.parametrize(
    ("shares", "values", "certified"),
    [
        ((1.0,), (20.0,), [True]),
        ((1.0,), (19.999999,), [False]),
        # f_1 = M_1 / 2; f_2 = min(M_2, f_1 + M_2 / 2)
        ((0.5, 0.5), (40.0, 1.0), [True, False]),
        ((0.5, 0.5), (39.9, 1.0), [False, False]),
        ((0.5, 0.5), (40.0, 20.0), [True, True]),  # shares add up: alone, the second would need 40
        ((0.5, 0.5), (40.0, 19.9), [True, False]),
        ((0.5, 0.5), (10.0, 30.0), [False, True]),  # 5 + 15: what is known of the first counts
        ((0.5, 0.5), (9.9, 30.0), [False, False]),
        ((0.5, 0.5), (0.0001, 39.9), [False, False]),
        ((0.5, 0.5), (0.0001, 40.0), [False, True]),
        # f_2 = min(M_2, f_1): no share of its own, so it is reached through the first alone
        ((1.0, 0.0), (20.0, 20.0), [True, True]),
        ((1.0, 0.0), (20.0, 19.9), [True, False]),
        ((1.0, 0.0), (19.9, 900.0), [False, False]),
        # f_3 = min(M_3, f_1 + 3/4 M_3, f_2 + 1/2 M_3), f_1 = M_1 / 4, f_2 = min(M_2 / 2, f_1 + M_2 / 4)
        ((0.25, 0.25, 0.5), (20.0, 20.0, 19.9), [False, False, False]),  # 5, 10, 19.9
        ((0.25, 0.25, 0.5), (20.0, 20.0, 20.1), [False, False, True]),  # 20.05
        ((0.25, 0.25, 0.5), (80.0, 1.0, 39.5), [True, False, True]),  # f_2 = 0.5: 20.25
        ((0.25, 0.25, 0.5), (80.0, 1.0, 38.5), [True, False, False]),  # 19.75
        ((0.25, 0.25, 0.5), (1.0, 120.0, 26.6), [False, True, True]),  # 0.25 + 19.95 through the first
        ((0.25, 0.25, 0.5), (1.0, 120.0, 26.2), [False, True, False]),  # 0.25 + 19.65, though the second has 30.25
    ],
)
def test_a_threshold_is_certified_from_20_on_by_its_own_evidence_and_that_of_stricter_ones(
    shares: tuple[float, ...], values: tuple[float, ...], certified: list[bool]
) -> None:
    assert looked_at(holding(values, shares)) == certified
    loosest = max((k for k, is_so in enumerate(certified) if is_so), default=None)
    state = after(holding(values, shares), [1.0], confidence=0.0)
    assert state.in_force == (None if loosest is None else state.tested[loosest])


def test_evidence_of_exactly_1_over_alpha_suffices_up_to_rounding() -> None:
    assert looked_at(holding((2.0,)), alpha=(1.0 - 1e-12) / 2.0) == [True]
    assert looked_at(holding((3.0,)), alpha=1.0 / 3.0) == [True]
    assert looked_at(holding((3.0 - 1e-9,)), alpha=1.0 / 3.0) == [False]


def test_a_certificate_is_kept_down_to_1_over_the_root_of_alpha() -> None:
    for value, kept in ((19.0, True), (4.48, True), (4.47, False)):  # 1 / sqrt(0.05) = 4.4721
        assert looked_at(holding((value,), certified=(1,))) == [kept]
        assert looked_at(holding((value,))) == [False]
    for value, kept in ((2.0, True), (1.999999, False)):
        assert looked_at(holding((value,), certified=(1,)), alpha=0.25) == [kept]


def test_each_threshold_keeps_and_loses_its_own_certificate() -> None:
    """By f, not by M: shares of 1/2, so f_1 = M_1 / 2 and f_2 = min(M_2, f_1 + M_2 / 2)."""
    assert looked_at(holding((8.0, 9.0), (0.5, 0.5), certified=(1, 2))) == [False, True]  # 4 and 8.5
    assert looked_at(holding((100.0, 4.0), (0.5, 0.5), certified=(1, 2))) == [True, False]  # 50 and 4
    assert looked_at(holding((10.0, 9.0), (0.5, 0.5), certified=(2,))) == [False, True]  # 5 and 9
    assert looked_at(holding((9.0, 3.0), (0.5, 0.5), certified=(1, 2))) == [True, False]  # 4.5 and 3


def test_a_lost_certificate_comes_again_at_1_over_alpha_and_not_before() -> None:
    losses = [0.0] * 7 + [1.0] * 2 + [0.0] * 6
    state, force = Selective.start((0.5,)).walk(np.ones(15), np.array(losses), np.ones(15), max_risk=0.5, alpha=0.05)
    # M: 11.88, 20.03, then 5.55 and 2.62 after losses, then 3.68, 5.32, 7.96, 12.3, 19.7 and 32.4
    assert force.tolist() == [0] * 7 + [1, 1] + [0] * 6
    assert state.in_force is not None
    values = [sum((1 + g) ** (7 + n) * (1 - g) ** 2 for g in G) / 8 for n in (2, 5, 6)]
    assert values[0] > 1 / math.sqrt(0.05)
    assert values[1] < 20.0 <= values[2] == pytest.approx(math.exp(state.tested[0].log_value))


def test_evidence_is_capped_by_scaling_all_bets_so_that_good_times_are_no_credit() -> None:
    ends = [after(Selective.start((0.5,)), [0.0] * n) for n in (30, 31, 400)]
    for n, end in zip((30, 31, 400), ends, strict=True):
        logs = end.tested[0].logs
        assert end.tested[0].log_value == pytest.approx(math.log(1000.0))  # 50 / alpha
        assert [one - logs[0] for one in logs] == pytest.approx([n * math.log((1 + g) / (1 + G[0])) for g in G])
    until_lost = [
        next(k for k in range(1, 20) if not after(end, [1.0] * k, log_boundary=99.0).in_force) for end in ends
    ]
    assert until_lost[0] <= 4
    assert until_lost[0] >= until_lost[1] >= until_lost[2]


LEFT = sum((1 - g) ** 8 for g in G) / 8  # of M after eight losses: 0.136
COUNTS = {"seen": 100.0, "accepted": 60, "weight": 50.0, "lost": 2.0}


def test_the_detector_takes_back_what_is_in_force_and_all_that_is_looser_and_leaves_the_stricter() -> None:
    """With max_risk 1/2 a served loss makes 1 + h of a bet of the detector, h from 0.01 to 0.9: the mean is 12.04 after
    seven, 20.62 after eight."""
    state = holding((500.0, 500.0, 3.0), (0.4, 0.3, 0.3), certified=(1, 2), **COUNTS)
    before = after(state, [1.0] * 7, confidence=0.85, log_boundary=LOG_20)
    assert (before.taken_back, before.in_force) == (0, before.tested[1])
    assert log_mean(np.array(before.detector)) == pytest.approx(math.log(12.0414), abs=1e-4)

    found = after(state, [1.0] * 8, confidence=0.85, log_boundary=LOG_20)
    assert (found.n, found.taken_back, found.fallen, found.alarm()) == (8, 1, 0, False)
    assert (found.detector, found.shares) == ((), state.shares)
    strict, served, loose = found.tested
    assert found.in_force == strict == threshold.Tested(0.9, (math.log(500.0),) * 8, True, 108.0, 60, 50.0, 2.0)
    assert served == threshold.Tested(0.8)  # M was 500 x 0.136, now 1
    assert loose.logs == pytest.approx((math.log(3.0 * LEFT),) * 8)  # spread evenly
    assert loose == threshold.Tested(0.7, loose.logs)


def test_only_the_last_certificate_that_is_taken_back_is_an_alarm() -> None:
    state = holding((500.0, 500.0), (0.5, 0.5), certified=(1, 2))
    once = after(state, [1.0] * 8, confidence=0.85, log_boundary=LOG_20)
    assert (once.taken_back, once.fallen, once.in_force, once.alarm()) == (1, 0, once.tested[0], False)
    twice = after(once, [1.0] * 8, log_boundary=LOG_20)
    assert (twice.taken_back, twice.fallen, twice.in_force, twice.alarm()) == (2, 1, None, True)
    again = after(twice, [0.0] * 12, log_boundary=LOG_20)
    assert again.in_force == again.tested[1]
    assert (again.n, again.taken_back, again.fallen, again.alarm()) == (28, 2, 1, True)


def test_what_was_taken_back_comes_again_with_seven_clean_pairs_as_at_the_start() -> None:
    fallen = after(holding((500.0,), certified=(1,)), [1.0] * 8, log_boundary=LOG_20)
    assert fallen.tested == (threshold.Tested(0.9),)
    assert [after(fallen, [0.0] * n).in_force is not None for n in (6, 7)] == [False, True]
    assert after(fallen, [0.0] * 7).tested[0].seen == 7.0


def test_pairs_that_come_after_a_threshold_was_taken_back_are_judged_without_it() -> None:
    state = holding((500.0, 500.0), (0.5, 0.5), certified=(1, 2))
    end, force = state.walk(np.full(20, 0.85), np.ones(20), np.ones(20), max_risk=0.5, alpha=0.05, log_boundary=LOG_20)
    assert force.tolist() == [2] * 8 + [1] * 12
    assert (end.n, end.taken_back, end.in_force) == (20, 1, end.tested[0])
    assert end.detector == (0.0,) * 12  # the first threshold serves none of these
    assert (end.tested[0].seen, end.tested[1].seen, end.tested[1].accepted) == (20.0, 12.0, 12)


def test_the_detector_fires_at_its_boundary_only_by_pairs_that_are_served_and_3000_is_the_default() -> None:
    state = holding((500.0, 400.0), (0.5, 0.5), certified=(1, 2))
    watched = after(state, [1.0] * 3, log_boundary=99.0)
    at = float(log_mean(np.array(watched.detector)))
    assert at == pytest.approx(math.log(2.11356), abs=1e-5)
    assert after(state, [1.0] * 3, log_boundary=at).taken_back == 1
    assert after(state, [1.0] * 3, log_boundary=math.nextafter(at, 1.0)).taken_back == 0
    assert after(watched, [1.0], confidence=0.5, log_boundary=0.1).taken_back == 0
    # All capital in the smallest bet, so that the detector is first: 9.1^n / 12 and more, at max_risk 0.1
    slow = Selective((threshold.Tested(0.5, (math.log(8000.0), *(-99.0,) * 7), certified=True),), (1.0,))
    assert [after(slow, [1.0] * n, max_risk=0.1).taken_back for n in (4, 5)] == [0, 1]
    exact = [sum((1 + 9 * 0.01 * 90 ** (j / 11)) ** n for j in range(12)) / 12 for n in (4, 5)]
    assert exact[0] < 3000.0 <= exact[1]
