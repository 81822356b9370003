"""Alpha over the versions of a route."""

import math

import pytest

from router.sequential import spending


def test_by_version_each_may_spend_alpha() -> None:
    assert [spending.alpha_of(0.05, "version", k) for k in (1, 2, 1000)] == [0.05, 0.05, 0.05]


def test_by_route_the_kth_may_spend_its_part() -> None:
    assert spending.alpha_of(0.05, "route", 1) == pytest.approx(0.05 * 6 / math.pi**2)
    assert spending.alpha_of(0.05, "route", 3) == pytest.approx(0.05 * 6 / math.pi**2 / 9)


def test_by_route_all_versions_together_spend_alpha() -> None:
    spent = math.fsum(spending.alpha_of(0.05, "route", k) for k in range(1, 20_001))
    assert spent < 0.05
    assert spent == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("spend", ["version", "route"])
def test_versions_are_counted_from_one(spend: spending.Spend) -> None:
    with pytest.raises(ValueError, match="counted from 1, in the order in which they entered shadow; got 0"):
        spending.alpha_of(0.05, spend, 0)
