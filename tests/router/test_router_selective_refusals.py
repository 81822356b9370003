"""When selective serving gives up on a version, and which thresholds, shares and pairs it refuses."""

import math

import numpy as np
import pytest

from router.errors import RouterError
from router.sequential import threshold
from router.sequential.selective import Selective


def judged(n: int, *sums: tuple[float, float], in_force: bool = False) -> Selective:
    """After n pairs, with the weights accepted and lost of each threshold."""
    tested = tuple(
        threshold.Tested(0.9 - k / 10, certified=in_force, seen=n, weight=weight, lost=lost)
        for k, (weight, lost) in enumerate(sums)
    )
    return Selective(tested, Selective.start(tuple(t.threshold for t in tested)).shares, n=n)


@pytest.mark.parametrize(
    ("state", "n_max", "why"),
    [
        (judged(0, (0, 0)), 1000, None),
        (judged(100, (60, 30)), 1000, "inferior"),
        (judged(100, (60, 30), (90, 40)), 1000, "inferior"),
        (judged(100, (60, 30), (90, 9)), 1000, None),  # the second may yet do
        (judged(100, (60, 30)), 100, "inferior"),
        (judged(100, (60, 30), in_force=True), 1000, None),
        (judged(999, (100, 6)), 1000, None),
        (judged(1000, (100, 6)), 1000, "undecided"),
        (judged(1001, (100, 6)), 1000, "undecided"),
        (judged(1000, (100, 6), in_force=True), 1000, None),
        (judged(1000, (0, 0)), 1000, "undecided"),
        # 0.15 - 2 x 0.0357 = 0.0786: KL to 0.1 is 0.00272, so 0.272 by now, and 1.36 < log 20 by n_max
        (judged(200, (100, 15)), 1000, "too_slow"),
        (judged(200, (100, 15)), 1001, None),  # not quite a fifth
        (judged(199, (100, 15)), 1000, None),
        (judged(200, (100, 15)), 5000, None),
        (judged(200, (100, 15), in_force=True), 1000, None),
        (judged(200, (0, 0)), 1000, "too_slow"),
        # 0.12 - 2 x 0.0325 = 0.055: 1.32 by now, 6.6 by n_max; 3.3 where that is only twice as far
        (judged(200, (100, 12)), 1000, None),
        (judged(400, (100, 12)), 1000, None),
        (judged(450, (100, 12)), 1000, "too_slow"),
        (judged(200, (100, 15), (100, 12)), 1000, None),
        (judged(200, (100, 15), (120, 20)), 1000, "too_slow"),
    ],
)
def test_it_is_given_up_when_it_is_inferior_at_n_max_or_too_slow_from_a_fifth_of_it_on(
    state: Selective, n_max: int, why: str | None
) -> None:
    assert state.futile(max_risk=0.1, alpha=0.05, n_max=n_max) == why


def test_what_was_taken_back_has_a_fifth_of_n_max_for_another_try() -> None:
    """600 pairs seen, 300 of them since it was taken back: 30 accepted without a loss win 3.2, and 7.4 by 1,000."""
    for seen, weight, why in ((300.0, 30.0, None), (300.0, 5.0, "too_slow"), (150.0, 5.0, None)):
        again = Selective((threshold.Tested(0.9, seen=seen, weight=weight),), (1.0,), n=600)
        assert again.futile(max_risk=0.1, alpha=0.05, n_max=1000) == why


@pytest.mark.parametrize("max_risk", [0.0, 0.51, 1.0])
def test_a_risk_beyond_a_half_is_refused(max_risk: float) -> None:
    one = np.array([1.0])
    with pytest.raises(RouterError) as refused:
        Selective.start((0.5,)).fold(one, one, one, max_risk=max_risk, alpha=0.05)
    assert str(refused.value) == f"max_risk must be in (0, 0.5]; got {max_risk}"


def test_a_long_good_time_is_within_a_floats_range_at_the_highest_risk() -> None:
    clean = np.ones(2000), np.zeros(2000), np.ones(2000)
    assert Selective.start((0.5,)).fold(*clean, max_risk=0.5, alpha=0.05).in_force is not None


def test_the_bounds_of_giving_up_are_those_of_alpha() -> None:
    one = judged(100, (60, 18))
    needed = one.tested[0].inferior(0.1)
    near = [math.exp(-needed) * (1.0 + k * 1e-16) for k in range(-100, 100)]
    exact = next(alpha for alpha in near if math.log(1.0 / alpha) == needed)
    for alpha, why in ((exact, "inferior"), (exact * 1.001, "inferior"), (exact * 0.999, None)):
        assert one.futile(max_risk=0.1, alpha=alpha, n_max=1000) == why
    # a clean pair wins log 2 at max_risk 1/2: with half a pair's weight of 100 pairs, log 2 by 200
    even = judged(100, (0.5, 0.0))
    assert even.futile(max_risk=0.5, alpha=0.5, n_max=200) is None
    assert even.futile(max_risk=0.5, alpha=0.4999, n_max=200) == "too_slow"


@pytest.mark.parametrize(
    ("thresholds", "shown"),
    [((), "[]"), ((0.5, 0.5), "[0.5, 0.5]"), ((0.5, 0.6), "[0.5, 0.6]"), ((1.1, 0.5), "[1.1, 0.5]"), ((0.0,), "[0.0]")],
)
def test_thresholds_that_do_not_fall_within_0_and_1_are_refused(thresholds: tuple[float, ...], shown: str) -> None:
    with pytest.raises(RouterError) as refused:
        Selective.start(thresholds)
    assert str(refused.value) == (
        "thresholds of confidence must be in (0, 1], each looser (lower) than the one before, "
        f"for example 0.9, 0.8, 0.6; got {shown}"
    )


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5, 0.0), (1.1, -0.1), (0.5, 0.4999), (0.5, 0.5001)])
def test_shares_that_are_too_few_or_many_negative_or_without_the_sum_1_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(RouterError) as refused:
        Selective.start((0.9, 0.5), shares)
    assert (
        str(refused.value)
        == f"shares of alpha must be one a threshold, none negative, with the sum 1; got {list(shares)}"
    )


def test_a_start_has_no_evidence_and_its_shares_or_even_ones() -> None:
    start = Selective.start((1, 0.25), (0, 1.0000001))
    assert start == Selective((threshold.Tested(1.0), threshold.Tested(0.25)), (0.0, 1.0000001))
    assert [type(v) for v in (start.tested[0].threshold, start.shares[0])] == [float, float]
    assert (start.in_force, start.alarm(), start.detector, start.n) == (None, False, (), 0)
    assert Selective.start((0.9, 0.8, 0.7, 0.6, 0.5)).shares == (0.25, 0.25, 0.25, 0.25, 0.0)


@pytest.mark.parametrize(
    ("of", "bad"),
    [*((of, bad) for of in ("confidence", "loss", "weight") for bad in (-0.01, 1.01, math.nan)), ("weight", 0.0)],
)
def test_pairs_with_a_value_out_of_its_range_are_refused(of: str, bad: float) -> None:
    values = {"confidence": [0.0, 1.0], "loss": [0.0, 1.0], "weight": [1e-9, 1.0]}
    start = Selective.start((0.5,))
    assert start.fold(*(np.array(a) for a in values.values()), max_risk=0.1, alpha=0.05).n == 2
    values[of] = [0.5, bad]
    with pytest.raises(RouterError) as refused:
        start.fold(*(np.array(a) for a in values.values()), max_risk=0.1, alpha=0.05)
    least, most = ("nan", "nan") if math.isnan(bad) else (min(0.5, bad), max(0.5, bad))
    wanted = "[1e-09, 1]" if of == "weight" else "[0, 1]"
    assert str(refused.value) == f"{of} must be in {wanted}; got {least} to {most}"


@pytest.mark.parametrize(
    "shapes", [((2,), (3,), (3,)), ((3,), (3,), (2,)), ((3,), (2,), (3,)), ((1, 3),) * 3, ((),) * 3]
)
def test_shapes_that_differ_or_are_no_rows_of_pairs_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(RouterError) as refused:
        Selective.start((0.5,)).fold(*(np.ones(shape) for shape in shapes), max_risk=0.1, alpha=0.05)
    shown = ", ".join(str(shape) for shape in shapes)
    assert str(refused.value) == f"confidence, loss and weight are one value a pair each; got {shown}"
