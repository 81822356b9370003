"""The table of metrics of one model on the held-out records, each with a bootstrap interval by conversation group.

The records of a group resemble each other, so they are drawn together (cluster bootstrap: Davison & Hinkley 1997, 3.8;
percentile interval), each with its weight. Where every group has the same score the interval is a point: the exact
intervals of a Report say more there. Scores are `router.score`'s own; a record whose reference holds nothing to compare
with is left out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from retrainer.data.curate import Example
from retrainer.evaluation.bounds import weighted_mean
from retrainer.evaluation.text_calls import with_calls
from router.scores import f1, json_value, leaves, score

RESAMPLES = 1000
MOST_FIELDS = 20


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over `n` records of `groups` groups, with its two-sided 95% interval."""

    value: float
    lower: float
    upper: float
    n: int
    groups: int


def bootstrap(
    values: Sequence[float], groups: Sequence[str], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Metric:
    """The mean of `values`, weighted where they have `weights`, sum(w v) / sum(w), and the percentiles 2.5 and 97.5 of
    the means of RESAMPLES draws of whole groups. Raises ValueError without a value."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    if not values:
        raise ValueError("no value has no mean")
    places = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(places)), np.zeros(len(places))
    for value, group, weight in zip(values, groups, weights or [1.0] * len(values), strict=True):
        sums[places[group]] += value * weight
        counts[places[group]] += weight
    drawn = np.random.default_rng(seed).integers(len(places), size=(RESAMPLES, len(places)))
    lower, upper = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (2.5, 97.5))
    mean = weighted_mean(values, weights)
    return Metric(value=mean, lower=float(lower), upper=float(upper), n=len(values), groups=len(places))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def metrics(
    examples: Sequence[Example],
    texts: Sequence[str],
    finish_reasons: Sequence[str],
    agreement: Sequence[float | None],
) -> dict[str, Metric]:
    """By name: `agreement` (the route's own score), `exact`, `rouge_l`, `json_fields` and `field:NAME` (F1, where the
    reference is JSON), `tool_calls` (where it calls any). What no record has is left out."""
    columns: dict[str, dict[int, float]] = {"agreement": {i: v for i, v in enumerate(agreement) if v is not None}}
    for i, (example, text, reason) in enumerate(zip(examples, texts, finish_reasons, strict=True)):
        for name, value in _row(example, text, reason).items():
            columns.setdefault(name, {})[i] = value
    fields = Counter({name: len(c) for name, c in columns.items() if name.startswith("field:")})
    kept = {name for name, _ in fields.most_common(MOST_FIELDS)}
    return {
        name: bootstrap(
            list(found.values()),
            [examples[i].group or examples[i].id for i in found],
            [examples[i].weight for i in found],
        )
        for name, found in columns.items()
        if found and (name in kept or not name.startswith("field:"))
    }


def _row(example: Example, text: str, finish_reason: str) -> dict[str, float]:
    reference = with_calls(example.answer, example.asked)
    names = ["exact", "rouge_l"]
    wanted = _fields(example.answer)
    if wanted is not None:
        names.append("json_fields")
    if "tool_calls" in reference:
        names.append("tool_calls")
    row = {}
    for name in names:
        try:
            found = score(
                name,
                answer=with_calls(text, example.asked),
                reference=reference,
                finish_reason=finish_reason,
                asked=example.asked,
            )
        except ValueError:
            continue
        row[name] = found.value
    if wanted:
        given = _fields(text) or {}
        row |= {f"field:{key}": f1(given.get(key, Counter()), leaves_).value for key, leaves_ in wanted.items()}
    return row


def _fields(text: str) -> Mapping[str, Counter[Any]] | None:
    """The leaves of a JSON object by its own keys; None for what is no JSON, nothing for JSON without keys."""
    try:
        value = json_value(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return {}
    return {key: Counter(leaves(inner)) for key, inner in value.items()}
