"""Surrogates that can be turned back: each stands for one thing, and none stands in the record's own text by chance."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collector.surrogates import Surrogates

Thing = tuple[str, str]  # an entity, and what is one of it

MOST_WORDS = 24  # of a surrogate: of a longer one only the whole is compared
FEW = 200  # look-ups, for which an index of the text doesn't pay
_WORD = re.compile(r"[^\W_]+")


class OneToOne:
    """The surrogates of one record. `own`: the value whose texts hold no surrogate by chance: the request.
    `before`: what an earlier one has `drawn`, by digests of the things, which keep it.

    Drawn in the order of asking, so that a record that begins with the same request gets the same ones. Each is looked
    up by its runs of words, in time that doesn't grow with the others nor with the text.
    """

    def __init__(self, surrogates: "Surrogates", own: Any, before: Mapping[str, int] | None = None) -> None:
        self._surrogates = surrogates
        self._before = before or {}
        self.drawn: dict[str, int] = {}
        self._own = own
        self._text: str | None = None
        self._looked_up = 0
        self._runs: dict[int, set[str]] = {}  # of so many words of the record's own text
        self._made: dict[tuple[str, str], str | None] = {}
        self._wholes: dict[str, Thing] = {}  # surrogate, from its first word to its last
        self._parts: dict[str, set[Thing]] = {}  # what stands in surrogates, and in whose

    def of(self, entity: str, text: str) -> str:
        """The surrogate of a text. Raises ValueError where there is none left."""
        if (entity, text) not in self._made:
            self._made[entity, text] = self._new(entity, text)
        made = self._made[entity, text]
        if made is None:
            raise ValueError(f"no surrogate of a {entity} is left")
        return made

    def any_of(self, entity: str, text: str) -> str:
        """A surrogate that may stand for something else as well."""
        return self._surrogates.of(entity, text)

    def _new(self, entity: str, text: str) -> str | None:
        thing = self._surrogates.thing(entity, text)
        name = self._surrogates.digest(thing)
        least = self._before.get(name)
        for number, made in self._surrogates.draws(entity, text):
            if number >= least if least is not None else self._free(made.casefold(), thing):
                break
        else:
            return None
        self.drawn.setdefault(name, number)
        whole, *parts = _runs(made.casefold())
        self._wholes[whole] = thing
        for part in (whole, *parts):
            self._parts.setdefault(part, set()).add(thing)
        return made

    def _free(self, made: str, thing: Thing) -> bool:
        whole, *parts = _runs(made)
        if whole in self._wholes:
            return self._wholes[whole] == thing
        return not (
            self._stands_in_own(whole)
            or self._parts.get(whole, set()) - {thing}
            or any(self._wholes.get(part, thing) != thing for part in parts)
        )

    def _stands_in_own(self, whole: str) -> bool:
        if self._text is None:
            self._text = "\n".join(texts(self._own)).casefold()
        self._looked_up += 1
        if self._looked_up <= FEW and whole not in self._text:
            return False
        count = len(_WORD.findall(whole))
        if count not in self._runs:
            words = [word.span() for word in _WORD.finditer(self._text)]
            ends = zip(words, words[max(count, 1) - 1 :], strict=False)
            self._runs[count] = {self._text[start:end] for (start, _), (_, end) in ends}
        return whole in self._runs[count]


def _runs(text: str) -> list[str]:
    """A text from its first word to its last, and each shorter run of its words, as they are written."""
    words = [word.span() for word in _WORD.finditer(text)]
    if not words:
        return [text]
    whole = text[words[0][0] : words[-1][1]]
    if len(words) > MOST_WORDS:
        return [whole]
    pairs = ((a, b) for n, (a, _) in enumerate(words) for _, b in words[n:])
    return [whole, *(run for a, b in pairs if (run := text[a:b]) != whole)]


def texts(value: Any) -> Iterator[str]:
    """Every string, key and number of a JSON-like value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield str(value)
