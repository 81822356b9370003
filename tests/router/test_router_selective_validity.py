"""Simulated: a threshold whose risk is max_risk is in force with probability alpha at most, however pairs are drawn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from router.sequential import threshold
from router.sequential.selective import Selective

Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats, Floats]
Draw = Callable[[np.random.Generator], Pairs]

RUNS, PAIRS = 300, 1500
MAX_RISK, ALPHA = 0.1, 0.05
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)  # 0.088


def banded(risks: tuple[float, ...], rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Confidence even on [0, 1]; losses of 0 and 1, by tenths of confidence from the highest on."""
    confidence = rng.random(n)
    band = np.minimum(((1.0 - confidence) * 10).astype(int), len(risks) - 1)
    return confidence, (rng.random(n) < np.array(risks)[band]).astype(float)


def all_at_the_limit(rng: np.random.Generator) -> Pairs:
    return *banded((MAX_RISK,), rng, PAIRS), np.ones(PAIRS)


def lost_in_part(rng: np.random.Generator) -> Pairs:
    """Half of all answers are lost by a fifth."""
    return rng.random(PAIRS), rng.choice([0.0, 0.2], PAIRS), np.ones(PAIRS)


def of_mixed_weights(rng: np.random.Generator) -> Pairs:
    return *banded((MAX_RISK,), rng, PAIRS), rng.choice([0.05, 0.3, 1.0], PAIRS)


# 0.9 and 0.8 lose 2%, what 0.6 accepts 0.1 on the whole, and so does what 0.4 and 0.2 accept
STRICT_ONES_SAFE = (0.02, 0.02, 0.18, 0.18, *(MAX_RISK,) * 6)


def with_safe_ones(rng: np.random.Generator) -> Pairs:
    return *banded(STRICT_ONES_SAFE, rng, PAIRS), np.ones(PAIRS)


def with_safe_ones_drifting(rng: np.random.Generator) -> Pairs:
    """Good and bad spells, each of whose pairs still loses 0.1 of what 0.6 and looser thresholds accept."""
    confidence, lost = banded(STRICT_ONES_SAFE, rng, PAIRS)
    harder = (np.arange(PAIRS) // 250) % 2 == 1
    other, lost_then = banded((MAX_RISK,), rng, PAIRS)
    return np.where(harder, other, confidence), np.where(harder, lost_then, lost), np.ones(PAIRS)


def ever_in_force(draw: Draw, thresholds: tuple[float, ...], nulls: set[float], alpha: float = ALPHA) -> float:
    """The share of runs in which a threshold for which H0 is true was ever in force."""
    rng, false = np.random.default_rng(11), 0
    null = np.array([False, *(t in nulls for t in thresholds)])
    for _ in range(RUNS):
        state, force = Selective.start(thresholds).walk(*draw(rng), max_risk=MAX_RISK, alpha=alpha)
        last = state.in_force
        false += bool(null[force].any()) or (last is not None and last.threshold in nulls)
    return false / RUNS


FIVE = (0.9, 0.8, 0.6, 0.4, 0.2)


@pytest.mark.parametrize(
    ("draw", "thresholds", "nulls"),
    [
        (all_at_the_limit, (0.2,), {0.2}),
        (all_at_the_limit, FIVE, set(FIVE)),
        (lost_in_part, FIVE, set(FIVE)),
        (of_mixed_weights, FIVE, set(FIVE)),
        (with_safe_ones, FIVE, {0.6, 0.4, 0.2}),
        (with_safe_ones_drifting, FIVE, {0.6, 0.4, 0.2}),
    ],
)
def test_a_threshold_at_the_limit_is_in_force_with_probability_alpha_at_most(
    draw: Draw, thresholds: tuple[float, ...], nulls: set[float]
) -> None:
    assert ever_in_force(draw, thresholds, nulls) <= MOST


def test_the_simulation_sees_certificates_that_are_given_at_a_tenth_of_the_evidence() -> None:
    assert ever_in_force(all_at_the_limit, (0.2,), {0.2}, alpha=10 * ALPHA) > 2 * MOST


def test_the_safe_ones_are_certified_in_the_same_streams() -> None:
    assert ever_in_force(with_safe_ones, FIVE, {0.9, 0.8}) > 0.95


def audited(risks: tuple[float, ...], *, by_hand: bool = False, weighted: bool = True) -> tuple[float, float]:
    """The shares of runs in which 0.8 and 0.2 were ever in force. What is served (by certificate; `by_hand`: what 0.8
    accepts, from the start) is asked for at a rate of 0.2 alone, so that pairs no longer look like requests."""
    rng, rate = np.random.default_rng(13), 0.2
    seen = np.zeros(2)
    for _ in range(RUNS):
        state, found = Selective.start((0.8, 0.2), (0.5, 0.5)), {0.8: False, 0.2: False}
        for _ in range(8):
            bar = state.in_force.threshold if state.in_force else 0.8 if by_hand else 2.0
            confidence, loss = banded(risks, rng, 300)
            served = confidence >= bar
            asked = rng.random(300) < np.where(served, rate, 1.0)
            rarest = rate if bar <= 1.0 else 1.0
            weight = np.where(served, rarest / rate, rarest) if weighted else np.ones(300)
            state = state.fold(confidence[asked], loss[asked], weight[asked], max_risk=MAX_RISK, alpha=ALPHA)
            if state.in_force:
                found[state.in_force.threshold] = True
        seen += list(found.values())
    strict, loose = (seen / RUNS).tolist()
    return strict, loose


def test_weights_keep_the_level_where_audits_of_what_is_served_are_thinned() -> None:
    """0.8 is safe, and 0.2 accepts so much more that it loses 0.1 on the whole."""
    strict, loose = audited((0.02, 0.02, *(0.76 / 6,) * 6, 0.5))
    assert strict > 0.95
    assert loose <= MOST


def test_without_weights_thinned_audits_would_break_the_level() -> None:
    """What is served loses 0.25, and is seldom asked for; what else 0.2 accepts loses 0.05: together 0.1."""
    risks = (0.25, 0.25, *(0.05,) * 6, 0.5)
    assert max(audited(risks, by_hand=True)) <= MOST
    assert audited(risks, by_hand=True, weighted=False)[1] > 2 * MOST


def test_the_bound_covers_the_risk_at_every_look_also_of_weighted_pairs_lost_in_part() -> None:
    """Looked at after 10, 40, 160 and 640 pairs."""
    rng, missed = np.random.default_rng(5), 0
    for i in range(RUNS):
        loss = rng.choice([0.0, 0.5, 1.0], 640, p=[0.85, 0.1, 0.05]) if i % 2 else (rng.random(640) < 0.1) * 1.0
        w = rng.choice([0.2, 1.0], 640) if i % 4 > 1 else np.ones(640)
        weight, lost = np.cumsum(w).tolist(), np.cumsum(w * loss).tolist()
        looks = [10 * 4**k - 1 for k in range(4)]
        missed += any(threshold.Tested(0.5, weight=weight[n], lost=lost[n]).bound(ALPHA) < 0.1 for n in looks)
    assert 0 < missed / RUNS <= MOST
