"""How far a data set's answers are from what production answers, where answers are closed: few values, or JSON whose
fields take few.

    distance = 1/2 sum over values |p(value) - q(value)|        (total variation, in [0, 1])

No value is kept in what is reported: it may be somebody's.
"""

import math
from typing import Any

import msgspec

MOST_VALUES = 200  # of a field that are told apart; others are one
OPEN = 0.1  # share of the answers with others, or longer ones, above which a field is open text
MOST_FIELDS = 50
LONGEST = 200  # characters of a value
WHOLE = ""  # the field of answers that are no JSON object


class Labels(msgspec.Struct):
    """Counts of `answers` and their values. `fields`: by field and value. `others`: by field, of values that are long,
    or come after so many."""

    answers: float = 0.0
    fields: dict[str, dict[str, float]] = {}
    others: dict[str, float] = {}

    def add(self, answer: str, weight: float = 1.0) -> None:
        """Count one."""
        self.answers += weight
        for field, value in _values(answer):
            if field not in self.fields and len(self.fields) >= MOST_FIELDS:
                continue
            counts = self.fields.setdefault(field, {})
            if len(value) > LONGEST or (value not in counts and len(counts) >= MOST_VALUES):
                self.others[field] = self.others.get(field, 0.0) + weight
            else:
                counts[value] = counts.get(value, 0.0) + weight

    def shares(self, field: str) -> dict[str | None, float]:
        """Of the answers, by the field's value. None: what isn't told apart, and answers without the field."""
        told: dict[str | None, float] = {v: n / self.answers for v, n in self.fields.get(field, {}).items()}
        return {**told, None: 1.0 - sum(told.values())} if self.answers else {}

    def is_open(self, field: str) -> bool:
        """Whether a field is open text: also where of few answers each says something else."""
        values, others = self.fields.get(field, {}), self.others.get(field, 0.0)
        whole = others + sum(values.values())
        return others > OPEN * whole or len(values) > max(10, whole / 2)


def shift(production: Labels, made: Labels) -> dict[str, dict[str, Any]]:
    """By field that is closed in production: its `values`, the `distance` (what has no such value, or not the field, is
    one more), and how many values are `missing` in the data set. The field of whole answers is `answer`."""
    found: dict[str, dict[str, Any]] = {}
    if not made.answers:
        return found
    for field in sorted(production.fields):
        if production.is_open(field):
            continue
        theirs, ours = production.shares(field), made.shares(field)
        values = theirs.keys() | ours.keys()
        apart = math.fsum(abs(ours.get(v, 0.0) - theirs.get(v, 0.0)) for v in values) / 2
        missing = sum(value not in ours for value in theirs)
        found[field or "answer"] = {"values": len(values - {None}), "distance": round(apart, 6), "missing": missing}
    return found


def _values(answer: str) -> list[tuple[str, str]]:
    text = answer.strip()
    if text.startswith("{"):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return [(WHOLE, text)]
        return [(name, msgspec.json.encode(v).decode()) for name, v in value.items()]
    return [(WHOLE, text)]
