"""JSON answers, field by field."""

import json
from collections import Counter
from typing import Any

from router.scores.message import DEEPEST, json_value
from router.scores.texts import exact
from router.scores.value import Score, f1


def json_fields(given: str, expected: str) -> Score:
    """F1 over the leaves (path, value) of two JSON values; invalid JSON, and JSON nested deeper than DEEPEST, scores 0.
    A reference that is no JSON is compared as text. Raises ValueError where the reference is nested too deeply."""
    try:
        wanted = json_value(expected)
    except RecursionError as error:
        raise ValueError("the reference is nested too deeply to compare with") from error
    except ValueError:
        return exact(given, expected)
    try:
        found = json_value(given)
    except (ValueError, RecursionError):  # a model that loops on "[" answers so
        return Score(0.0, "invalid_json")
    return f1(Counter(leaves(found)), Counter(leaves(wanted)))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
    """(path, value as JSON) of everything that holds nothing else; an empty object or list is a leaf.

    Raises RecursionError for a value nested deeper than DEEPEST levels.
    """
    if len(path) > DEEPEST:
        raise RecursionError(f"JSON nested deeper than {DEEPEST} levels")
    if isinstance(value, dict) and value:
        return [leaf for k, v in value.items() for leaf in leaves(v, (*path, k))]
    if isinstance(value, list) and value:
        return [leaf for n, v in enumerate(value) for leaf in leaves(v, (*path, n))]
    return [(path, json.dumps(value, sort_keys=True))]
