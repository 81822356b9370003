"""Tool calls: the right tools, with the right arguments.

A soft F1 over calls. A call is its name and the leaves of its arguments; two calls of the same name share the F1 of
these. The best pairs are matched first, each call once; F1 = 2 sum(shared) / (given + expected calls). The order of
calls doesn't count, since they may run side by side. The right tool with wrong arguments is worth little, but more
than no call.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from router.scores.fields import leaves
from router.scores.message import ToolCall
from router.scores.value import Score, f1, f_measure

MOST = 200  # calls of one answer that are matched; a model that loops makes more


def tool_calls_f1(given: Sequence[ToolCall], expected: Sequence[ToolCall]) -> Score:
    """Where neither calls anything, they are equal; where one alone does, the score is 0.

    Raises ValueError where the reference's arguments are nested too deeply.
    """
    try:
        wanted = [(call.name, _bag(call)) for call in expected[:MOST]]
    except RecursionError as error:
        raise ValueError("the reference is nested too deeply to compare with") from error
    found = [(call.name, _bag_or_none(call)) for call in given[:MOST]]
    pairs = sorted(
        (-f1(bag, target).value, i, j)
        for i, (name, bag) in enumerate(found)
        for j, (other, target) in enumerate(wanted)
        if name == other and bag is not None
    )
    used_given, used_wanted, shared = set[int](), set[int](), 0.0
    for worth, i, j in pairs:
        if i not in used_given and j not in used_wanted:
            used_given.add(i)
            used_wanted.add(j)
            shared -= worth
    return f_measure(shared, len(given), len(expected))


def _bag(call: ToolCall) -> Counter[Any]:
    return Counter([("name", call.name), *leaves(call.arguments)])


def _bag_or_none(call: ToolCall) -> Counter[Any] | None:
    try:
        return _bag(call)
    except RecursionError:
        return None
