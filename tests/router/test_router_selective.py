"""The walk of selective serving: the docstring's rule pair by pair, in parts and over restarts, and a case by hand."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.sequential import threshold
from router.sequential.selective import CAP, ROWS, Selective

Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats, Floats]

ALPHA = 0.05
KEPT = 1.0 / math.sqrt(ALPHA)
RISKS = (0.1, 0.3, 0.5)


@dataclass
class One:
    """One threshold, kept as numbers rather than logs."""

    threshold: float
    capital: list[float] = field(default_factory=lambda: [1.0] * 8)
    certified: bool = False
    seen: float = 0.0
    accepted: int = 0
    weight: float = 0.0
    lost: float = 0.0

    @property
    def value(self) -> float:
        return sum(self.capital) / 8


@dataclass
class Slow:
    """The rule as the docstring states it, one pair after the other."""

    tested: list[One]
    shares: tuple[float, ...]
    max_risk: float
    log_boundary: float
    detector: list[float] = field(default_factory=lambda: [1.0] * 12)
    taken_back: int = 0
    fallen: int = 0
    force: list[int] = field(default_factory=list)

    def number(self) -> int:
        return max([k + 1 for k, one in enumerate(self.tested) if one.certified], default=0)

    def pair(self, c: float, loss: float, w: float) -> None:
        before, x = self.number(), w * (loss - self.max_risk)
        self.force.append(before)
        f, sums = [0.0], [0.0]
        for one, share in zip(self.tested, self.shares, strict=True):
            one.seen += w
            if c >= one.threshold:
                bets = [0.1 * 9.0 ** (j / 7) / (1.0 - self.max_risk) for j in range(8)]
                capital = [m * (1.0 - bet * x) for m, bet in zip(one.capital, bets, strict=True)]
                scale = min(1.0, CAP / ALPHA / (sum(capital) / 8))
                one.capital = [m * scale for m in capital]
                one.accepted, one.weight, one.lost = one.accepted + 1, one.weight + w, one.lost + w * loss
            here = sums[-1] + share
            f.append(min(f_j + (here - v_j) * one.value for f_j, v_j in zip(f, sums, strict=True)))
            sums.append(here)
            one.certified = f[-1] >= 1.0 / ALPHA or (one.certified and f[-1] >= KEPT)
        served = before > 0 and c >= self.tested[before - 1].threshold
        against = [0.01 * 90.0 ** (j / 11) / self.max_risk for j in range(12)]
        self.detector = [
            max(m, 1.0) * (1.0 + (bet * x if served else 0.0)) for m, bet in zip(self.detector, against, strict=True)
        ]
        if served and sum(self.detector) / 12 >= math.exp(self.log_boundary):
            for k in range(before - 1, len(self.tested)):
                old = self.tested[k]
                self.tested[k] = One(old.threshold, [min(old.value, 1.0)] * 8)
            self.detector = [1.0] * 12
            self.taken_back += 1
            self.fallen += self.number() == 0


def stream(seed: int, n: int, max_risk: float) -> Pairs:
    """Spells of good and bad service; confidence on the thresholds themselves, too; some losses in part."""
    rng = np.random.default_rng(seed)
    confidence = np.minimum(rng.integers(2, 13, n) / 10, 1.0)
    bad = (np.arange(n) % 60 >= 40) & (rng.random() < 0.8)
    unsure = confidence < rng.choice([0.0, 0.5, 0.9])
    chance = np.where(bad, rng.choice([3.0 * max_risk, 0.95]), max_risk * np.where(unsure, 0.8, 0.05))
    loss = np.where(rng.random(n) < chance, rng.choice([1.0, 1.0, 0.6], n), 0.0)
    weight = np.where(rng.random(n) < 0.7, 1.0, rng.uniform(0.3, 1.0, n))
    return confidence, loss, weight


def begin(seed: int, count: int) -> Selective:
    rng = np.random.default_rng(seed)
    thresholds = np.sort(rng.choice(np.arange(1, 11), count, replace=False))[::-1] / 10
    shares = rng.dirichlet(np.ones(count)) if count > 1 else np.ones(1)
    if count > 2:
        shares = np.where(np.arange(count) == count // 2, 0.0, shares)
        shares = shares / shares.sum()
    return Selective.start(tuple(thresholds.tolist()), tuple(shares.tolist()))


def same(found: Selective, wanted: Selective) -> None:
    assert (found.n, found.taken_back, found.fallen) == (wanted.n, wanted.taken_back, wanted.fallen)
    assert found.shares == wanted.shares
    assert found.detector == pytest.approx(wanted.detector, abs=1e-8)
    for a, b in zip(found.tested, wanted.tested, strict=True):
        assert (a.threshold, a.certified, a.accepted) == (b.threshold, b.certified, b.accepted)
        assert a.logs == pytest.approx(b.logs, abs=1e-8)
        assert (a.seen, a.weight, a.lost) == pytest.approx((b.seen, b.weight, b.lost), abs=1e-8)


def check_by_the_rule(seed: int, n: int, count: int, max_risk: float, log_boundary: float) -> Selective:
    start, pairs = begin(seed, count), stream(seed, n, max_risk)
    slow = Slow([One(t.threshold) for t in start.tested], start.shares, max_risk, log_boundary)
    for c, loss, w in zip(*(a.tolist() for a in pairs), strict=True):
        slow.pair(c, loss, w)
    found, force = start.walk(*pairs, max_risk=max_risk, alpha=ALPHA, log_boundary=log_boundary)
    assert force.tolist() == slow.force
    tested = tuple(
        threshold.Tested(
            one.threshold,
            tuple(math.log(m) for m in one.capital),
            one.certified,
            one.seen,
            one.accepted,
            one.weight,
            one.lost,
        )
        for one in slow.tested
    )
    logs = tuple(math.log(m) for m in slow.detector) if found.detector else ()
    same(found, Selective(tested, start.shares, logs, n, slow.taken_back, slow.fallen))
    return found


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 150),
    count=st.integers(1, 6),
    max_risk=st.sampled_from(RISKS),
    log_boundary=st.floats(0.5, 4.0),
)
def test_the_walk_is_the_rule_pair_by_pair(seed: int, n: int, count: int, max_risk: float, log_boundary: float) -> None:
    check_by_the_rule(seed, n, count, max_risk, log_boundary)


def test_the_walk_is_the_rule_over_long_streams_with_thresholds_that_come_and_go() -> None:
    ends = [check_by_the_rule(seed, 2 * ROWS + 100, 1 + seed, 0.5, 1.0) for seed in range(6)]
    assert sum(end.taken_back for end in ends) > sum(end.fallen for end in ends) > 0
    assert all(end.n == 2 * ROWS + 100 for end in ends)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), count=st.integers(1, 5))
def test_folding_one_by_one_is_folding_at_once(seed: int, n: int, count: int) -> None:
    pairs, state, force = stream(seed, n, 0.5), begin(seed, count), []
    whole, at_once = state.walk(*pairs, max_risk=0.5, alpha=ALPHA, log_boundary=2.0)
    for i in range(n):
        one = (pairs[0][i : i + 1], pairs[1][i : i + 1], pairs[2][i : i + 1])
        in_force = state.in_force
        force.append(0 if in_force is None else state.tested.index(in_force) + 1)
        state = state.fold(*one, max_risk=0.5, alpha=ALPHA, log_boundary=2.0)
    same(state, whole)
    assert at_once.tolist() == force


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 3 * ROWS), max_size=6),
    count=st.integers(1, 5),
    max_risk=st.sampled_from(RISKS),
)
def test_folding_in_any_parts_over_any_restarts_is_folding_at_once(
    seed: int, cuts: list[int], count: int, max_risk: float
) -> None:
    pairs, state, forces = stream(seed, 3 * ROWS, max_risk), begin(seed, count), []
    whole, force = state.walk(*pairs, max_risk=max_risk, alpha=ALPHA, log_boundary=2.0)
    edges = [0, *sorted(cuts), 3 * ROWS]
    for a, b in pairwise(edges):
        part = (pairs[0][a:b], pairs[1][a:b], pairs[2][a:b])
        state, some = state.walk(*part, max_risk=max_risk, alpha=ALPHA, log_boundary=2.0)
        forces.append(some)
        kept = msgspec.json.decode(msgspec.json.encode(state), type=Selective)
        assert kept == state
        state = kept
    same(state, whole)
    assert np.array_equal(np.concatenate(forces), force)


def test_no_pairs_change_nothing() -> None:
    start, nothing = begin(1, 3), np.zeros(0)
    state, force = start.walk(nothing, nothing, nothing, max_risk=0.1, alpha=ALPHA)
    assert state == start
    assert force.shape == (0,)


def test_the_numbers_of_thresholds_are_whole_and_fold_is_the_walk_without_them() -> None:
    start, pairs = begin(3, 4), stream(3, 700, 0.3)
    state, force = start.walk(*pairs, max_risk=0.3, alpha=ALPHA, log_boundary=2.0)
    assert force.dtype == np.int64
    assert force.max() == 4
    assert start.fold(*pairs, max_risk=0.3, alpha=ALPHA, log_boundary=2.0) == state


def test_truths_and_lists_are_numbers_too() -> None:
    start, ones = begin(2, 3), np.ones(9)
    wanted = start.fold(ones, np.array([0.0, 1.0, 1.0] * 3), ones, max_risk=0.3, alpha=ALPHA)
    given_ = ([1] * 9, [False, True, True] * 3, [True] * 9)
    found = start.fold(*(np.array(a) for a in given_), max_risk=0.3, alpha=ALPHA)
    assert found == wanted
    assert found.tested[0].weight == 9.0
    assert start.fold(*given_, max_risk=0.3, alpha=ALPHA) == wanted  # type: ignore[arg-type]


def test_by_hand_seven_clean_pairs_certify_where_half_may_be_lost() -> None:
    """With max_risk 1/2 a bet l_j = 2 g_j, g_j from 0.1 to 0.9 by factors of 9^(1/7), makes 1 + g_j of a clean pair
    (x = -1/2) and 1 - g_j of a lost one. The mean over j of (1 + g_j)^7 is 20.029 >= 20, of (1 + g_j)^6 it is 11.882.
    A loss after seven clean pairs leaves 5.549; another one 2.616, which is below 1/sqrt(1/20) = 4.472: not kept."""
    g = [0.1, 0.136874, 0.187344, 0.256425, 0.350979, 0.480398, 0.657539, 0.9]
    start, one, nothing = Selective.start((0.5,)), np.ones(1), np.zeros(1)
    state, values, certified = start, [], []
    for loss in [0.0] * 7 + [1.0] * 2:
        state = state.fold(one, np.array([loss]), one, max_risk=0.5, alpha=ALPHA)
        state = state.fold(nothing, one, one, max_risk=0.5, alpha=ALPHA)  # not accepted: no evidence
        values.append(math.exp(state.tested[0].log_value))
        certified.append(state.in_force is not None)
    won = [sum((1 + b) ** n for b in g) / 8 for n in range(1, 8)]
    lost = [sum((1 + b) ** 7 * (1 - b) ** n for b in g) / 8 for n in range(1, 3)]
    assert values == pytest.approx(won + lost, rel=1e-5)
    assert values[5:] == pytest.approx([11.882, 20.029, 5.549, 2.616], abs=1e-3)
    assert certified == [False] * 6 + [True, True, False]
    assert state.tested[0].logs == pytest.approx([7 * math.log(1 + b) + 2 * math.log(1 - b) for b in g], abs=1e-4)
    tested = state.tested[0]
    assert (tested.seen, tested.accepted, tested.weight, tested.lost) == (18.0, 9, 9.0, 2.0)
    assert (tested.coverage, tested.risk) == (0.5, 2 / 9)
    assert state.n == 18


def test_a_weight_scales_what_a_pair_is_worth() -> None:
    """Weighted by 1/2, a clean pair at max_risk 1/2 wins 1 + g_j / 2: thirteen certify, no longer seven."""
    start, half = Selective.start((0.5,)), np.full(13, 0.5)
    state, force = start.walk(np.ones(13), np.zeros(13), half, max_risk=0.5, alpha=ALPHA)
    g = [0.1 * 9 ** (j / 7) for j in range(8)]
    assert state.tested[0].logs == pytest.approx([13 * math.log1p(b / 2) for b in g])
    assert sum((1 + b / 2) ** 12 for b in g) / 8 < 20.0 <= sum((1 + b / 2) ** 13 for b in g) / 8
    assert (force.tolist(), state.in_force) == ([0] * 13, state.tested[0])
    assert (state.tested[0].seen, state.tested[0].weight, state.tested[0].accepted) == (6.5, 6.5, 13)
