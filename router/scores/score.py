"""How good an answer is, compared with a reference answer, and why."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

# Levels of JSON that are compared: more than any real answer has, and so few that Python's own limit, which depends on
# who calls, never decides a score.
DEEPEST = 100


class Score(msgspec.Struct, frozen=True):
    """`value` in [0, 1]; `reason`: `equal`, `differs`, or why the answer counts as bad."""

    value: float
    reason: str


Message = Mapping[str, Any]


def score(name: str, *, answer: Message | None, reference: Message | None, finish_reason: str | None) -> Score:
    """Score an assistant message against the reference's.

    A missing, empty, refused or cut off answer scores 0. Raises KeyError for an unknown score, ValueError where the
    reference itself holds nothing to compare with, or is JSON nested too deeply to be compared.
    """
    rule = SCORES[name]
    expected = answer_text(reference)
    if not expected:
        raise ValueError("the reference holds no text to compare with")
    if answer is None:
        return Score(0.0, "missing")
    if answer.get("refusal"):
        return Score(0.0, "refusal")
    if finish_reason == "length":
        return Score(0.0, "cut_off")
    given = answer_text(answer)
    if not given.strip():
        return Score(0.0, "empty")
    return rule(given, expected)


def answer_text(message: Message | None) -> str:
    """A message's text: its content, or the text parts of it, joined."""
    content = message.get("content") if message else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value that can be read: one nested too deeply for that is none."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def exact(given: str, expected: str) -> Score:
    """1 where the texts are equal but for white space at their ends."""
    same = given.strip() == expected.strip()
    return Score(float(same), "equal" if same else "differs")


def json_fields(given: str, expected: str) -> Score:
    """F1 over the leaves (path, value) of two JSON values; invalid JSON, and JSON nested deeper than DEEPEST, scores 0.
    A reference that is no JSON is compared as text. Raises ValueError where the reference is nested too deeply."""
    try:
        wanted = _fields(expected)
    except RecursionError as error:
        raise ValueError("the reference is nested too deeply to compare with") from error
    except ValueError:
        return exact(given, expected)
    try:
        found = _fields(given)
    except (ValueError, RecursionError):  # a model that loops on "[" answers so
        return Score(0.0, "invalid_json")
    return _f1(found, wanted)


def token_f1(given: str, expected: str) -> Score:
    """F1 over the words of both texts, in lower case (SQuAD's measure without its article rule)."""
    return _f1(Counter(re.findall(r"\w+", given.lower())), Counter(re.findall(r"\w+", expected.lower())))


def _f1(given: Counter[Any], expected: Counter[Any]) -> Score:
    if given == expected:
        return Score(1.0, "equal")
    shared = (given & expected).total()
    return Score(2.0 * shared / (given.total() + expected.total()), "differs")


def _fields(text: str) -> Counter[Any]:
    """The leaves of a JSON text. Raises ValueError where it is none, RecursionError where it is nested too deeply."""
    return Counter(_leaves(json.loads(text)))


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
    if len(path) > DEEPEST:
        raise RecursionError(f"JSON nested deeper than {DEEPEST} levels")
    if isinstance(value, dict) and value:
        return [leaf for k, v in value.items() for leaf in _leaves(v, (*path, k))]
    if isinstance(value, list) and value:
        return [leaf for n, v in enumerate(value) for leaf in _leaves(v, (*path, n))]
    return [(path, json.dumps(value, sort_keys=True))]


SCORES: Mapping[str, Callable[[str, str], Score]] = {"exact": exact, "json_fields": json_fields, "token_f1": token_f1}
