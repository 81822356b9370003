"""Surrogates that can be turned back: each stands for one thing, and none stands in the record's own text by chance."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collector.surrogates import Surrogates


class OneToOne:
    """The surrogates of one record. `own`: the value whose texts hold no surrogate by chance: the request.

    Drawn in the order of asking, so that a record that begins with the same request gets the same ones.
    """

    def __init__(self, surrogates: "Surrogates", own: Any) -> None:
        self._surrogates = surrogates
        self._own = own
        self._text: str | None = None
        self._stands_for: dict[str, tuple[str, str]] = {}

    def of(self, entity: str, text: str) -> str:
        """The surrogate of a text. Raises ValueError where there is none left."""
        thing = self._surrogates.thing(entity, text)
        made = self._surrogates.of(entity, text, lambda made: self._free(made.casefold(), thing))
        self._stands_for[made.casefold()] = thing
        return made

    def any_of(self, entity: str, text: str) -> str:
        """A surrogate that may stand for something else as well."""
        return self._surrogates.of(entity, text)

    def _free(self, made: str, thing: tuple[str, str]) -> bool:
        if made in self._stands_for:
            return self._stands_for[made] == thing
        if self._text is None:
            self._text = "\n".join(texts(self._own)).casefold()
        others = (other for other, theirs in self._stands_for.items() if theirs != thing)
        return not (_stands_in(made, self._text) or any(_stands_in(made, o) or _stands_in(o, made) for o in others))


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


def _stands_in(words: str, text: str) -> bool:
    return words in text and re.search(rf"(?<![^\W_]){re.escape(words)}(?![^\W_])", text) is not None
