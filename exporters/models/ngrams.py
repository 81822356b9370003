"""Texts as weighted n-grams: words and pairs of words, and within words 2 to 4 characters (their ends are characters,
too). Pure Python: training and serving count alike.

    weight = (1 + ln count) (1 + ln((1 + texts) / (1 + texts with it))),   each of the two kinds to length 1

(Salton & Buckley 1988, with logarithmic counts). What fewer than two training texts hold is left out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

LONGEST_TEXT = 8000  # characters that are read
LEAST_TEXTS = 2
_WORD = re.compile(r"\w+")
_LENGTHS = (2, 3, 4)


class Ngrams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`words`, `parts`: the n-grams of each kind with the inverse frequency of each. Columns count words first."""

    words: dict[str, float]
    parts: dict[str, float]

    @classmethod
    def learn(cls, texts: Sequence[str], *, most: int) -> "Ngrams":
        """Of training texts; at most `most` of each kind, the most frequent ones."""
        words: Counter[str] = Counter()
        parts: Counter[str] = Counter()
        for text in texts:
            words.update(set(_words(text)))
            parts.update(set(_parts(text)))
        return cls(words=_kept(words, len(texts), most), parts=_kept(parts, len(texts), most))

    def __len__(self) -> int:
        return len(self.words) + len(self.parts)

    def columns(self) -> tuple[dict[str, int], dict[str, int]]:
        """The number of each word, and of each part."""
        words = {gram: number for number, gram in enumerate(self.words)}
        return words, {gram: number for number, gram in enumerate(self.parts, start=len(words))}


class Reader:
    """Reads texts by learnt n-grams."""

    def __init__(self, ngrams: Ngrams) -> None:
        words, parts = ngrams.columns()
        self._kinds = ((words, ngrams.words, _words), (parts, ngrams.parts, _parts))

    def row(self, text: str) -> tuple[list[int], list[float]]:
        """The columns of what the text holds, and their weights; none where nothing of it is known."""
        columns: list[int] = []
        weights: list[float] = []
        for numbers, rarity, split in self._kinds:
            counts = Counter(gram for gram in split(text) if gram in numbers)
            found = [(1.0 + math.log(count)) * rarity[gram] for gram, count in counts.items()]
            length = math.sqrt(math.fsum(w * w for w in found)) or 1.0
            columns += [numbers[gram] for gram in counts]
            weights += [w / length for w in found]
        return columns, weights


def _kept(held: Counter[str], texts: int, most: int) -> dict[str, float]:
    frequent = [(gram, count) for gram, count in held.items() if count >= LEAST_TEXTS]
    frequent.sort(key=lambda pair: (-pair[1], pair[0]))
    return {gram: 1.0 + math.log((1 + texts) / (1 + count)) for gram, count in frequent[:most]}


def _words(text: str) -> Iterator[str]:
    words = _WORD.findall(text[:LONGEST_TEXT].casefold())
    yield from words
    yield from map(" ".join, pairwise(words))


def _parts(text: str) -> Iterator[str]:
    for word in text[:LONGEST_TEXT].casefold().split():
        marked = f" {word} "
        for length in _LENGTHS:
            for at in range(len(marked) - length + 1):
                yield marked[at : at + length]
