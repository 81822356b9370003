"""Personal data in a student's answer that its request didn't bring: it was memorised, or made up."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from collector.one_to_one import texts
from collector.stand_ins import plain

IN_WORDS = frozenset(("PERSON", "CITY", "STREET"))  # found again where all their words are, in whatever order
_BETWEEN = "\n"


def not_asked(found: Iterable[tuple[str, str]], request: Any) -> dict[str, int]:
    """Of an answer's finds (entity, text), how many of each kind stand nowhere in the request."""
    said = list(texts(request))
    whole = _BETWEEN.join(map(plain, said))
    words = {plain(word) for text in said for word in _words(text)}
    counts: Counter[str] = Counter()
    for entity, text in set(found):
        in_words = entity in IN_WORDS and all(plain(word) in words for word in _words(text))
        if not in_words and plain(text) not in whole:
            counts[entity] += 1
    return dict(counts)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)
