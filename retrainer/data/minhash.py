"""MinHash of prompts (Broder 1997): how near two texts are, from 64 numbers of each.

The share of equal numbers estimates the Jaccard index of the texts' 5-byte shingles, with a standard error of
1/sqrt(64) at most. The numbers are cut into 5 bands of 11: prompts that share a band are taken for near-duplicates,
which two of index s do with probability 1 - (1 - s^11)^5: 0.9 at 0.9, 0.36 at 0.8, 0.02 at 0.5. (Of all cuts of 64 that
one has the smallest sum of errors to either side of 0.8; Leskovec, Rajaraman & Ullman 2014, chapter 3.)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

PERMUTATIONS, BANDS, ROWS = 64, 5, 11
SHINGLE = 5
_LONGEST = 1 << 16  # bytes of a text that are looked at

_draw = np.random.default_rng(1)  # fixed: a record's group must not change
_FACTORS = _draw.integers(0, 1 << 63, size=(PERMUTATIONS, 1), dtype=np.uint64) | np.uint64(1)
_SHIFTS = _draw.integers(0, 1 << 63, size=(PERMUTATIONS, 1), dtype=np.uint64)
_POWERS = _draw.integers(0, 1 << 63, size=ROWS, dtype=np.uint64) | np.uint64(1)
_NUMBERED = np.arange(BANDS, dtype=np.uint64) << np.uint64(32)


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """What makes prompts alike: their texts, case and white space aside. The system prompt is left out: all of a
    route's requests share it."""
    text = "\n".join(m["content"] for m in messages if m["role"] != "system").casefold()
    return " ".join(text.split())


def sketch(text: str) -> Hashes:
    """The text's 64 numbers [64], each below 2^32: the least value of a random hash over all shingles."""
    codes = np.frombuffer(text.encode("utf-8", "replace")[:_LONGEST].ljust(SHINGLE, b"\0"), dtype=np.uint8)
    count = len(codes) - SHINGLE + 1
    rolled = np.zeros(count, dtype=np.uint64)
    for at in range(SHINGLE):
        rolled = (rolled << np.uint64(8)) | codes[at : at + count]
    hashed = _mixed(np.unique(rolled))
    return np.asarray(((hashed * _FACTORS + _SHIFTS) >> np.uint64(32)).min(axis=1), dtype=np.uint64)


def bands(numbers: Hashes) -> list[int]:
    """A signed 64-bit number for each band: equal where the bands are, and different for different places."""
    rows = numbers[: BANDS * ROWS].reshape(BANDS, ROWS)
    mixed = _mixed((_mixed(rows) * _POWERS).sum(axis=1, dtype=np.uint64) + _NUMBERED)
    return [int(value) for value in mixed.view(np.int64)]


def _mixed(values: Hashes) -> Hashes:
    """Splitmix64's finish: every bit depends on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
