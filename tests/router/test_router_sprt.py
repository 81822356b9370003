"""Wald's tests: increments, what values in between count as, and levels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.sequential import Mixture, sprt

rates = st.floats(0.02, 0.98)


def test_a_success_and_a_failure_add_the_logs_of_their_ratios() -> None:
    factors = sprt.binary(np.array([1.0, 0.0]), 0.90, 0.95)
    assert factors.shape == (2, 1)
    assert factors[:, 0] == pytest.approx([math.log(0.95 / 0.90), math.log(0.05 / 0.10)])


def test_the_states_log_value_is_walds_sum() -> None:
    x = np.where(np.arange(200) % 20 == 7, 0.0, 1.0)
    state = Mixture().fold(sprt.binary(x[:120], 0.9, 0.95)).fold(sprt.binary(x[120:], 0.9, 0.95))
    assert state.log_value == pytest.approx(190 * math.log(0.95 / 0.90) + 10 * math.log(0.05 / 0.10))
    assert state.n == 200


@settings(max_examples=100, deadline=None)
@given(
    p0=rates,
    p1=rates,
    mean=st.floats(0.0, 1.0),
    spread=st.floats(0.0, 1.0),
)
def test_the_mean_ratio_is_at_most_one_for_every_score_whose_mean_is_in_h0(
    p0: float, p1: float, mean: float, spread: float
) -> None:
    """Two-point scores a < b in [0, 1] with a mean on H0's side of p0."""
    if abs(p0 - p1) < 0.01:
        return
    mean = mean * p0 if p1 > p0 else p0 + mean * (1.0 - p0)
    a, b = mean * (1.0 - spread), mean + spread * (1.0 - mean)
    share = (mean - a) / (b - a) if b > a else 0.0
    ratio = np.exp(sprt.binary(np.array([a, b]), p0, p1)[:, 0])
    assert (1.0 - share) * ratio[0] + share * ratio[1] <= 1.0 + 1e-9


def test_agreement_is_the_binary_test_of_scores() -> None:
    d = np.array([0.0, -1.0, -0.25])
    assert np.array_equal(sprt.agreement(d, 0.07, 0.97), sprt.binary(1.0 + d, 1.0 - 0.07, 0.97))


def test_latency_is_the_binary_test_whose_good_side_is_below() -> None:
    factors = sprt.slower(np.array([1.0, 0.0]), 0.4)
    assert factors[:, 0] == pytest.approx([math.log(0.4 / 0.5), math.log(0.6 / 0.5)])


def test_a_win_and_a_loss_add_their_ratios_and_a_tie_nothing() -> None:
    factors = sprt.paired(np.array([1.0, -1.0, 0.0]), 0.05, 0.095)
    assert factors.shape == (3, 1)
    assert factors[:, 0] == pytest.approx([math.log(0.095 / 0.045), math.log(0.095 / 0.145), 0.0])


def test_part_of_a_win_counts_as_that_part() -> None:
    ratio = np.exp(sprt.paired(np.array([0.5, 1.0, -0.5, -1.0]), 0.05, 0.095)[:, 0]) - 1.0
    assert ratio[0] == pytest.approx(ratio[1] / 2)
    assert ratio[2] == pytest.approx(ratio[3] / 2)


@settings(max_examples=100, deadline=None)
@given(margin=st.floats(0.01, 0.3), more=st.floats(0.01, 0.6), share=st.floats(0.0, 1.0), worse=st.floats(0.0, 1.0))
def test_the_paired_ratio_has_mean_one_at_most_while_no_more_pairs_differ_than_was_said(
    margin: float, more: float, share: float, worse: float
) -> None:
    psi = margin + more
    actual = margin + share * more  # E|D|, up to psi
    mean = -margin - worse * (actual - margin)  # E[D], at the margin or below
    win, loss, tie = np.exp(sprt.paired(np.array([1.0, -1.0, 0.0]), margin, psi)[:, 0])
    average = (actual + mean) / 2 * win + (actual - mean) / 2 * loss + (1.0 - actual) * tie
    assert average <= 1.0 + 1e-12
    if worse == 0.0:
        assert average == pytest.approx(1.0 + margin**2 * (actual - psi) / (psi**2 - margin**2))


def test_weighted_pairs_add_less_and_stay_fair() -> None:
    d = np.array([1.0, -1.0])
    full, part = np.exp(sprt.paired(d, 0.05, 0.095)) - 1.0, np.exp(sprt.paired(d, 0.05, 0.095, 0.2)) - 1.0
    assert part == pytest.approx(0.2 * full)
    weights = np.array([1.0, 0.5])
    assert np.exp(sprt.agreement(-d[:1] * 0.0, 0.07, 0.97, 0.5)) - 1.0 == pytest.approx(0.5 * (0.97 / 0.93 - 1.0))
    assert np.exp(sprt.binary(np.array([1.0, 1.0]), 0.9, 0.95, weights))[:, 0] - 1.0 == pytest.approx(
        weights * (0.95 / 0.90 - 1.0)
    )


@pytest.mark.parametrize(("p0", "p1"), [(0.9, 0.9), (0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)])
def test_rates_that_make_no_test_are_refused(p0: float, p1: float) -> None:
    with pytest.raises(ValueError, match=rf"two different rates between 0 and 1; got {p0} and {p1}"):
        sprt.binary(np.array([1.0]), p0, p1)


def test_rates_on_the_wrong_side_are_refused() -> None:
    for rate in (0.75, 0.7):
        with pytest.raises(ValueError, match=rf"good_rate must be above 1 - margin = 0\.75; got {rate}"):
            sprt.agreement(np.array([0.0]), 0.25, rate)
    for rate in (0.0, 0.5, 0.6):
        with pytest.raises(ValueError, match=r"under 0\.5, for example 0\.4; got"):
            sprt.slower(np.array([0.0]), rate)


@pytest.mark.parametrize(("margin", "psi"), [(0.05, 0.05), (0.05, 0.02), (0.0, 0.1), (0.05, 1.01)])
def test_a_discordance_that_no_student_at_the_margin_could_have_is_refused(margin: float, psi: float) -> None:
    with pytest.raises(ValueError, match=f"discordance must be above the margin {margin}, and at most 1; got {psi}"):
        sprt.paired(np.array([0.0]), margin, psi)


def test_every_pair_may_differ() -> None:
    assert sprt.paired(np.array([1.0]), 0.05, 1.0)[0, 0] == pytest.approx(math.log(1.0 / 0.95))


def test_boundaries() -> None:
    assert sprt.boundaries(0.05) == (pytest.approx(math.log(0.1 / 0.95)), pytest.approx(math.log(20.0)))
    assert sprt.boundaries(0.02, 0.03) == (pytest.approx(math.log(0.03 / 0.98)), pytest.approx(math.log(50.0)))
