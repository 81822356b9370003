"""Are a route's answers few? Found from the teacher's answers alone. Pure.

An answer that holds a JSON object is taken apart into its values (lists count as one value) and the text around them;
the names of its fields, in their order, are its shape. The commonest shape is a form where each field takes few
values; else the whole answer may be one of few texts. What occurred twice counts as one of the few: the share of
answers whose values occurred only once estimates how often a new answer will hold an unknown value (Good 1953).
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from exporters.models.closed_form import Field, Form

LEAST_SHARE = 0.9  # of the answers that a form must cover
MOST_VALUES = 1000  # of a field
LEAST_TIMES = 2  # that a value must have occurred

_decoder = json.JSONDecoder()
_SPACE = " \t\r\n"


class Parsed(msgspec.Struct, frozen=True):
    """An answer taken apart; see Form."""

    names: tuple[str, ...]
    pieces: tuple[str, ...]
    values: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `form`: None where the answers aren't few, and `reason` says why. `answers`: that were looked at;
    `covered`: whose values a student can give; `verbatim`: that it would give to the byte. `counts`: how often each
    value of the form occurred, in its order."""

    form: Form | None
    reason: str | None
    answers: int
    covered: int
    verbatim: int
    counts: list[list[int]]

    @property
    def share(self) -> float:
        """Of the answers that are covered."""
        return self.covered / self.answers if self.answers else 0.0

    def summary(self) -> dict[str, Any]:
        """For people and manifests: the template, and every field's values with their counts."""
        shown: dict[str, Any] = {
            "closed": self.form is not None,
            "reason": self.reason,
            "answers": self.answers,
            "covered": self.covered,
            "verbatim": self.verbatim,
        }
        if self.form is not None:
            blanks = [f"<{field.name or 'answer'}>" for field in self.form.fields]
            shown["template"] = "".join(p + b for p, b in zip(self.form.pieces, [*blanks, ""], strict=True))
            shown["fields"] = {
                field.name or "answer": dict(zip(field.values, counts, strict=True))
                for field, counts in zip(self.form.fields, self.counts, strict=True)
            }
        return shown


class Choices:
    """Finds an answer's values in a form."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._numbers = [{value: n for n, value in enumerate(field.values)} for field in form.fields]

    def of(self, answer: str) -> tuple[int, ...] | None:
        """The number of each field's value; None where the form can't express them. The text around them may differ."""
        parsed = whole(answer) if self._form.names == ("",) else parse(answer)
        if parsed.names != self._form.names:
            return None
        found = [numbers.get(value) for numbers, value in zip(self._numbers, parsed.values, strict=True)]
        return None if None in found else tuple(n for n in found if n is not None)


def detect(answers: Sequence[str]) -> Closed:
    """Look for a form that covers at least LEAST_SHARE of the answers."""
    if not answers:
        return Closed(form=None, reason="there is no answer", answers=0, covered=0, verbatim=0, counts=[])
    taken = [parse(a) for a in answers]
    (names, _), *_ = Counter(p.names for p in taken).most_common(1)
    tried = [_tried(answers, [p for p in taken if p.names == names])]
    if names != ("",):
        tried.append(_tried(answers, [whole(a) for a in answers]))
    return max(tried, key=lambda found: (found.form is not None, found.covered))


def parse(answer: str) -> Parsed:
    """By the first JSON object in it; without one, as a whole."""
    at = answer.find("{")
    try:
        found, _ = _decoder.raw_decode(answer, at) if at >= 0 else (None, 0)
        spans = list(_leaves(answer, at, "")) if isinstance(found, dict) else []
    except (ValueError, RecursionError):
        return whole(answer)
    if not spans:
        return whole(answer)
    edges = [0, *(edge for _, begin, end in spans for edge in (begin, end)), len(answer)]
    pieces = [answer[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return Parsed(tuple(n for n, _, _ in spans), tuple(pieces), tuple(answer[a:b] for _, a, b in spans))


def whole(answer: str) -> Parsed:
    """An answer as one value."""
    return Parsed(("",), ("", ""), (answer,))


def _tried(answers: Sequence[str], alike: Sequence[Parsed]) -> Closed:
    """The form of answers of one shape, with their commonest pieces; and how much of all answers it covers."""
    (words, _), *_ = Counter(map(_words, alike)).most_common(1)
    (pieces, _), *_ = Counter(p.pieces for p in alike if _words(p) == words).most_common(1)
    counts = [Counter(p.values[n] for p in alike) for n in range(len(alike[0].names))]
    kept = [[(v, c) for v, c in counter.most_common() if c >= LEAST_TIMES] for counter in counts]
    names = alike[0].names
    if not all(kept):
        return _open(answers, f"no value of {names[kept.index([])] or 'an answer'} occurs twice")
    fields = tuple(Field(name=n, values=tuple(v for v, _ in some)) for n, some in zip(names, kept, strict=True))
    form = Form(pieces=pieces, fields=fields)
    known = [set(field.values) for field in fields]
    inside = [p for p in alike if all(v in k for v, k in zip(p.values, known, strict=True))]
    found = Closed(
        form=form,
        reason=None,
        answers=len(answers),
        covered=len(inside),
        verbatim=sum(p.pieces == pieces for p in inside),
        counts=[[c for _, c in some] for some in kept],
    )
    if max(form.sizes) > MOST_VALUES:
        return _open(
            answers, f"{names[form.sizes.index(max(form.sizes))] or 'an answer'} takes {max(form.sizes)} values"
        )
    if found.share < LEAST_SHARE:
        reason = f"values that occur at least twice cover {found.share:.1%} of the answers, less than {LEAST_SHARE:.0%}"
        return msgspec.structs.replace(found, form=None, reason=reason, counts=[])
    share = sum(_words(p) == words for p in inside) / len(answers)
    if share < LEAST_SHARE:
        reason = f"what stands beside the values differs: the same words in {share:.1%}, less than {LEAST_SHARE:.0%}"
        return msgspec.structs.replace(found, form=None, reason=reason, counts=[])
    return found


def _words(parsed: Parsed) -> str:
    """What stands beside the values, however it is spaced."""
    return "\0".join("".join(piece.split()) for piece in parsed.pieces)


def _open(answers: Sequence[str], reason: str) -> Closed:
    return Closed(form=None, reason=reason, answers=len(answers), covered=0, verbatim=0, counts=[])


def _leaves(text: str, at: int, path: str) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of each value of the valid JSON object at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        value, end = _decoder.raw_decode(text, at)
        if isinstance(value, dict) and value:
            yield from _leaves(text, at, f"{path}{key}.")
        else:
            yield path + key, at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
