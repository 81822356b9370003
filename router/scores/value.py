"""A score, and the F-measure under most of them."""

from collections import Counter
from typing import Any

import msgspec


class Score(msgspec.Struct, frozen=True):
    """`value` in [0, 1]; `reason`: `equal`, `differs`, or why the answer counts as bad."""

    value: float
    reason: str


def f_measure(shared: float, given: int, expected: int) -> Score:
    """2 shared / (given + expected): the harmonic mean of precision and recall; two that are empty are equal."""
    if shared == given == expected:
        return Score(1.0, "equal")
    return Score(2.0 * shared / (given + expected), "differs")


def f1(given: Counter[Any], expected: Counter[Any]) -> Score:
    """F-measure of two bags."""
    return f_measure((given & expected).total(), given.total(), expected.total())
