"""How far a data set's answers are from what production answers, where answers are closed: few values, or JSON whose
fields take few.

    distance = 1/2 sum over values |p(value) - q(value)|        (total variation, in [0, 1])

No value is kept in what is reported: it may be somebody's.
"""

from typing import Any

import msgspec

MOST_VALUES = 200  # of a field, above which it is open text
MOST_FIELDS = 50
LONGEST = 200  # characters of a value
WHOLE = ""  # the field of answers that are no JSON object


class Labels(msgspec.Struct):
    """Counts of answers' values. `fields`: by field and value; None for a field that is open."""

    fields: dict[str, dict[str, float] | None] = {}

    def add(self, answer: str, weight: float = 1.0) -> None:
        """Count one."""
        for field, value in _values(answer):
            if field not in self.fields and len(self.fields) >= MOST_FIELDS:
                continue
            counts = self.fields.setdefault(field, {})
            if counts is None:
                continue
            if len(value) > LONGEST or (value not in counts and len(counts) >= MOST_VALUES):
                self.fields[field] = None
                continue
            counts[value] = counts.get(value, 0.0) + weight


def shift(production: Labels, made: Labels) -> dict[str, dict[str, Any]]:
    """By field that is closed in production: its `values`, the `distance`, and how many values are `missing` in the
    data set. The field of whole answers is `answer`."""
    found: dict[str, dict[str, Any]] = {}
    for field, expected in sorted(production.fields.items()):
        given = made.fields.get(field)
        if expected is None or not given:
            continue
        ours, theirs = sum(given.values()), sum(expected.values())
        values = sorted(expected.keys() | given.keys())
        apart = sum(abs(given.get(v, 0.0) / ours - expected.get(v, 0.0) / theirs) for v in values) / 2
        missing = sum(value not in given for value in expected)
        found[field or "answer"] = {"values": len(values), "distance": round(apart, 6), "missing": missing}
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
