"""Scores of texts: exact, numeric, words in common, words in the same order.

All but `exact` are F-measures with equal weights, 2 shared / (given + expected): a text that says too much loses as
one that says too little. Sources: token F1: Rajpurkar et al. 2016 (SQuAD), without its article rule; ROUGE-L: Lin 2004,
with beta = 1, words in lower case, not stemmed.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

from router.scores.value import Score, f1, f_measure

MOST = 20_000  # words or numbers of each text that are put in order; a longer text is compared up to there

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def exact(given: str, expected: str) -> Score:
    """1 where the texts are equal but for white space at their ends."""
    same = given.strip() == expected.strip()
    return Score(float(same), "equal" if same else "differs")


def token_f1(given: str, expected: str) -> Score:
    """F1 over the words of both texts, in lower case; texts without any word are compared as they are."""
    words = _words(expected)
    return f1(Counter(_words(given)), Counter(words)) if words else exact(given, expected)


def rouge_l(given: str, expected: str) -> Score:
    """F-measure of the longest common subsequence of the words, in lower case: order counts."""
    said, words = _words(given)[:MOST], _words(expected)[:MOST]
    if not words:
        return exact(given, expected)
    places: dict[Hashable, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    return f_measure(lcs([places.get(word, 0) for word in said]), len(said), len(words))


def numeric(given: str, expected: str, tolerance: float) -> Score:
    """The numbers of both texts, equal where |a - b| <= tolerance * |b|, b the reference's.

    A reference of one number is answered by the last number of the answer, whatever was reckoned before it; of several
    numbers, the F-measure of those that come in the same order. A reference without any is compared as text.
    """
    wanted, found = numbers(expected)[:MOST], numbers(given)[:MOST]
    if not wanted:
        return exact(given, expected)
    if len(wanted) == 1:
        found = found[-1:]
    near = [sum(1 << place for place, b in enumerate(wanted) if _near(a, b, tolerance)) for a in found]
    return f_measure(lcs(near), len(found), len(wanted))


def numbers(text: str) -> list[float]:
    """The numbers in a text: 1,234.5 and 1e-3 are one each; what is part of a word or a version (v1.2.3) is none."""
    return [float(n.replace(",", "")) for n in _NUMBER.findall(text.replace("\u2212", "-"))]


def lcs(matches: Sequence[int]) -> int:
    """The length of the longest common subsequence. `matches`: for each item of one sequence, a bit for each place of
    the other where it matches. O(items) operations on integers of that many bits (Hyyro 2004)."""
    ones = max((m.bit_length() for m in matches), default=0)
    mask = (1 << ones) - 1
    row = mask
    for match in matches:
        hit = row & match
        row = ((row + hit) | (row - hit)) & mask
    return ones - row.bit_count()


def _near(a: float, b: float, tolerance: float) -> bool:
    return a == b or abs(a - b) <= tolerance * abs(b)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
