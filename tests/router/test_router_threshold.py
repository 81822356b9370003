"""One threshold of confidence: its bets, the bound of its risk, proof that it is too high, and its prospects."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.sequential import threshold
from router.sequential.threshold import bets


def of(accepted: float, lost: float, seen: float = 0.0) -> threshold.Tested:
    """After pairs of these sums."""
    return threshold.Tested(0.5, seen=seen, accepted=round(accepted), weight=accepted, lost=lost)


def log_e_above(accepted: float, lost: float, r: float) -> float:
    """The log e-value against a risk of r or more, of so many losses of 1 and of 0."""
    each = [0.1 * 9 ** (j / 7) / (1.0 - r) for j in range(8)]
    logs = [lost * math.log(1 - bet * (1 - r)) + (accepted - lost) * math.log(1 + bet * r) for bet in each]
    return math.log(sum(math.exp(one) for one in logs) / 8)


@pytest.mark.parametrize("max_risk", [0.03, 0.5])
def test_there_are_eight_bets_by_equal_factors_and_the_highest_loses_nine_tenths(max_risk: float) -> None:
    assert bets(max_risk) * (1.0 - max_risk) == pytest.approx([0.1 * 9 ** (j / 7) for j in range(8)])


def test_coverage_risk_and_value_are_of_the_sums_and_of_the_mean_of_the_bets() -> None:
    start = threshold.Tested(0.5)
    assert (start.log_value, start.coverage, start.risk, start.bound(0.05)) == (0.0, 0.0, None, 1.0)
    assert (of(0.0, 0.0, seen=9.0).coverage, of(0.0, 0.0, seen=9.0).risk) == (0.0, None)
    assert (of(30.0, 6.0, seen=120.0).coverage, of(30.0, 6.0).risk) == (0.25, 0.2)
    logs = tuple(math.log(m) for m in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 12.0))
    assert threshold.Tested(0.5, logs).log_value == pytest.approx(math.log(5.0))


@pytest.mark.parametrize(
    ("accepted", "lost", "alpha"),
    [
        (100.0, 0.0, 0.05),
        (100.0, 3.0, 0.05),
        (1000.0, 30.0, 0.05),
        (1000.0, 30.0, 0.2),
        (7.5, 2.25, 0.1),
        (50.0, 49.0, 0.05),
    ],
)
def test_the_bound_is_the_risk_from_which_on_the_evidence_refutes(accepted: float, lost: float, alpha: float) -> None:
    bound = of(accepted, lost).bound(alpha)
    assert lost / accepted < bound < 1.0
    needed = math.log(1.0 / alpha)
    assert log_e_above(accepted, lost, bound - 1e-9) < needed <= log_e_above(accepted, lost, bound + 1e-9)


def test_the_bound_by_hand() -> None:
    """Seven clean pairs: (1 + g r / (1 - r))^7 has the mean 20.029 over the bets at r = 1/2, where 20 are needed; at a
    risk of 1 nothing is left to refute, and 100 lost pairs refute nothing below."""
    assert of(7.0, 0.0).bound(0.05) == pytest.approx(0.49987, abs=1e-5)
    assert of(7.0, 0.0).bound(1.0 / 20.029020621654876) == pytest.approx(0.5, abs=1e-9)
    assert of(100.0, 100.0).bound(0.05) == pytest.approx(1.0, abs=1e-6)
    assert of(7.0, 0.0).bound(1e-9) < 1.0


@settings(max_examples=60, deadline=None)
@given(
    accepted=st.floats(1.0, 5000.0),
    share=st.floats(0.0, 0.9),
    more=st.floats(1.05, 4.0),
    alpha=st.floats(0.01, 0.3),
)
def test_the_bound_falls_with_evidence_and_rises_with_losses_and_certainty(
    accepted: float, share: float, more: float, alpha: float
) -> None:
    bound = of(accepted, share * accepted).bound(alpha)
    assert share < bound <= 1.0
    assert of(more * accepted, share * more * accepted).bound(alpha) <= bound + 1e-9
    assert of(accepted, min(1.1 * share + 0.01, 1.0) * accepted).bound(alpha) >= bound
    assert of(accepted, share * accepted).bound(alpha / 2) >= bound
    assert of(accepted + more, share * accepted).bound(alpha) <= bound + 1e-9


@pytest.mark.parametrize(("accepted", "lost", "max_risk"), [(40.0, 9.0, 0.1), (200.0, 3.5, 0.03), (12.5, 12.5, 0.3)])
def test_inferior_is_the_e_value_of_the_sums_against_a_risk_of_at_most_max_risk(
    accepted: float, lost: float, max_risk: float
) -> None:
    each = [0.01 * 90 ** (j / 11) / max_risk for j in range(12)]
    values = [(1 + bet * (1 - max_risk)) ** lost * (1 - bet * max_risk) ** (accepted - lost) for bet in each]
    assert of(accepted, lost).inferior(max_risk) == pytest.approx(math.log(sum(values) / 12))


def test_inferior_of_the_sums_is_at_most_what_the_pairs_themselves_say() -> None:
    rng = np.random.default_rng(3)
    assert threshold.Tested(0.5).inferior(0.1) == 0.0
    for _ in range(50):
        loss, w = rng.choice([0.0, 0.3, 1.0], 60, p=[0.5, 0.3, 0.2]), rng.uniform(0.1, 1.0, 60)
        each = 0.01 * 90 ** (np.arange(12) / 11) / 0.1
        pairs = np.log(np.mean(np.prod(1 + each[:, None] * w * (loss - 0.1), axis=1)))
        assert of(float(w.sum()), float(w @ loss)).inferior(0.1) <= pairs + 1e-9


def kl(p: float, q: float) -> float:
    """KL(p || q), what a bet that knows p wins a pair."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize(
    ("accepted", "lost", "prospect"),
    [
        (0.0, 0.0, 0.0),
        (100.0, 0.0, 100 * math.log(1 / 0.9)),  # no loss: the best bet wins 1 / (1 - max_risk) a pair
        (100.0, 2.0, 100 * math.log(1 / 0.9)),  # 0.02 - 2 x 0.014 < 0
        (100.0, 25.0, 0.0),  # 0.25 - 2 x 0.0433 = 0.163 > 0.1
        (100.0, 100.0, 0.0),
        (400.0, 40.0, 400 * kl(0.07, 0.1)),  # 0.1 - 2 x sqrt(0.09 / 400) = 0.07
        # 0.2 - 2 x sqrt(0.16 / 64) = 0.1
        (64.0, 12.8, 0.0),
        (64.0, 12.5, 64 * kl(0.1953125 - 2 * math.sqrt(0.1953125 * 0.8046875 / 64), 0.1)),
    ],
)
def test_prospect_is_the_best_bets_gain_at_a_risk_two_standard_errors_lower(
    accepted: float, lost: float, prospect: float
) -> None:
    assert of(accepted, lost).prospect(0.1) == pytest.approx(prospect, rel=1e-9, abs=1e-12)
