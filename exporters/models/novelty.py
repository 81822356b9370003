"""How unlike the training set an input is: 1 - the mean cosine of its 3 nearest neighbours there. No model is asked.

Text: the last user message (case folded, white space collapsed, its first 8,000 bytes); earlier turns are not looked
at. Its words and its n-grams of 3 and 4 bytes are hashed with a sign into TEXT_DIMS numbers (Weinberger et al. 2009),
weighted by inverse document frequency (of a hash table of its own, so that collisions cost little), and the vector's
length is made 1. A digest of the system messages, spread over SYSTEM_DIMS signs of length SYSTEM_WEIGHT,
is put behind it: another system prompt is novel too. Rows are kept as int8, whose scale falls out when each row's
length is made 1 again: 5,000 rows take 2.6 MB.

Measured with 5,000 texts kept, the probability that a foreign text is more novel than one of the set (and the share of
the foreign that lie above the set's 99th percentile): CLINC150's out-of-scope against its in-scope queries 0.94 (23%),
those against Banking77 0.98 (74%), CLINC150 against Debian's package lines 0.95 (41%). Longer n-grams and pairs of
words add nothing, words alone are worse (0.77 to 0.92), and so are others than 3 neighbours; 512 numbers do as well as
65,536. So the gate stops what is plainly foreign, and what is less so counts as one of the confidence's features.

The training set's texts went through the scrubber and live ones have not; surrogates look like what they replace, so
that costs little. Only workers and the retrainer import this.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.models.errors import CorruptArtefact
from exporters.models.tensors import read_tensors, write_tensors

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Messages = Sequence[Mapping[str, str]]

MOST_EXAMPLES = 5000
NEAREST = 3
TEXT_DIMS = 480
SYSTEM_DIMS = 32
SYSTEM_WEIGHT = 0.5
LONGEST_TEXT = 8000
_FREQUENCIES = 1 << 15
_N_GRAMS = (3, 4)
_AROUND = b".,:;!?()[]\"'"  # of words


class Neighbours:
    """The kept examples. `vectors` [n, TEXT_DIMS + SYSTEM_DIMS], rows of length 1; `idf` [_FREQUENCIES]."""

    def __init__(self, vectors: Floats, idf: Floats) -> None:
        self.vectors = vectors
        self._idf = idf

    @classmethod
    def of(cls, examples: Sequence[Messages]) -> "Neighbours":
        """Of a training set's prompts, at most MOST_EXAMPLES of them, drawn evenly. Raises ValueError without any."""
        if not examples:
            raise ValueError("there is no training example to be near to")
        kept = evenly(examples, MOST_EXAMPLES)
        hashed = [_hashes(_text(messages)) for messages in kept]
        found = np.zeros(_FREQUENCIES)
        for hashes in hashed:
            found[np.unique(hashes % np.uint64(_FREQUENCIES)).astype(np.int64)] += 1
        idf = (np.log((1 + len(kept)) / (1 + found)) + 1).astype(np.float32)
        rows = [_vector(hashes, messages, idf) for hashes, messages in zip(hashed, kept, strict=True)]
        return cls(_unit(_quantized(np.stack(rows)).astype(np.float32)), idf)  # as `load` gives it back

    @classmethod
    def load(cls, path: Path) -> "Neighbours":
        """What `save` wrote. Raises CorruptArtefact."""
        found = read_tensors(path)
        vectors, idf = found.get("vectors"), found.get("idf")
        right = vectors is not None and vectors.ndim == 2 and vectors.shape[1] == TEXT_DIMS + SYSTEM_DIMS
        if vectors is None or idf is None or not right or not len(vectors) or idf.shape != (_FREQUENCIES,):
            raise CorruptArtefact(
                f"{path} holds no vectors [n, {TEXT_DIMS + SYSTEM_DIMS}] with idf [{_FREQUENCIES}]; "
                "export the version again"
            )
        return cls(_unit(vectors.astype(np.float32)), idf.astype(np.float32))

    def save(self, path: Path) -> None:
        """Write a safetensors file: data alone, which nothing runs when it is read."""
        write_tensors(path, {"vectors": _quantized(self.vectors), "idf": self._idf})

    def __len__(self) -> int:
        return len(self.vectors)

    def vector(self, messages: Messages) -> Floats:
        """An input's [TEXT_DIMS + SYSTEM_DIMS], of length 1; its product with another's is their cosine."""
        return _vector(_hashes(_text(messages)), messages, self._idf)

    def novelty(self, messages: Messages) -> float:
        """In [0, 2]: 0 for an input that the training set holds three times, about 1 for one that shares nothing."""
        cosines = self.vectors @ _vector(_hashes(_text(messages)), messages, self._idf)
        count = min(NEAREST, len(cosines))
        nearest = np.partition(cosines, len(cosines) - count)[-count:]
        return float(min(max(1.0 - float(nearest.mean()), 0.0), 2.0))


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, at even distances."""
    count = min(len(items), most)
    return [items[at * len(items) // count] for at in range(count)]


def _text(messages: Messages) -> bytes:
    last = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    return f" {' '.join(last.casefold().split())} ".encode("utf-8", "replace")[:LONGEST_TEXT]


def _hashes(text: bytes) -> Hashes:
    """A 64-bit hash of each n-gram and of each word."""
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.uint64)
    found = []
    for n in _N_GRAMS:
        count = len(codes) - n + 1
        if count > 0:
            rolled = np.full(count, n, dtype=np.uint64)
            for at in range(n):
                rolled = rolled * np.uint64(0x100000001B3) + codes[at : at + count]
            found.append(rolled)
    found.append(np.array([zlib.crc32(word.strip(_AROUND)) | 1 << 40 for word in text.split()], dtype=np.uint64))
    mixed = np.concatenate(found)  # then splitmix64's finish, so that every bit depends on all
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _vector(hashes: Hashes, messages: Messages, idf: Floats) -> Floats:
    """[TEXT_DIMS + SYSTEM_DIMS], of length 1."""
    weights = idf[(hashes % np.uint64(_FREQUENCIES)).astype(np.int64)]
    signs = np.where(hashes >> np.uint64(63), 1.0, -1.0)
    places = ((hashes >> np.uint64(16)) % np.uint64(TEXT_DIMS)).astype(np.int64)
    text = np.bincount(places, weights=signs * weights, minlength=TEXT_DIMS)
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    digest = np.frombuffer(hashlib.sha256(system.encode("utf-8", "replace")).digest()[: SYSTEM_DIMS // 8], np.uint8)
    behind = (np.unpackbits(digest) * 2.0 - 1.0) * (SYSTEM_WEIGHT / SYSTEM_DIMS**0.5)
    length = float(np.linalg.norm(text)) or 1.0
    both = np.concatenate([text / length, behind])
    return np.asarray(both / np.linalg.norm(both), dtype=np.float32)


def _quantized(rows: Floats) -> npt.NDArray[np.int8]:
    largest = np.abs(rows).max(axis=1, keepdims=True)
    return np.asarray(np.rint(rows * (127.0 / largest)), dtype=np.int8)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0.0, 1.0, lengths), dtype=np.float32)
