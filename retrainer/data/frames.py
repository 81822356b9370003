"""What is compared of a prompt: its words, without those that an app writes around, before or between its users' own.

Beside a thousand characters of an instruction any two requests look alike. So the app's words are learnt while the log
is read, always from the same records: those of a whole page, for itself and the pages that follow, so what comes later
changes nothing of what was compared before. (A log that fills no page has none. An app that changes its instruction has
the new one learnt.) The app's are runs of RUN words that stand in a tenth of a page's conversations, if most of these
say different things beside; a flood of one request, with another time or number each, doesn't.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RUN = 8  # words
SHARE, LEAST = 0.1, 10  # of a page's conversations, and so many of them: fewer may share a run by chance
VARIED = 0.5  # of these, so many different remainders
MOST = 50_000  # runs that are known: some hundred instructions

Messages = Sequence[Mapping[str, str]]
_Runs = NDArray[np.uint64]

_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, kana, Han: each a word
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_POWERS = np.array([pow(0x9E3779B97F4A7C15, at, 1 << 64) for at in range(RUN)], dtype=np.uint64)


class Frames:
    """`known`: the runs, by 64-bit hashes; what is learnt is added to the list."""

    def __init__(self, known: list[int]) -> None:
        self.known, self._all = known, set(known)

    def learn(self, prompts: Mapping[str, Messages]) -> None:
        """Look at a page, which is whole. `prompts`: one of each of its conversations."""
        texts = list(dict.fromkeys(map(prompt_text, prompts.values())))
        if len(texts) < LEAST or len(self.known) >= MOST:
            return
        words = [_WORD.findall(text) for text in texts]
        runs = [_runs(one) for one in words]
        values, counts = np.unique(np.concatenate([np.unique(one) for one in runs]), return_counts=True)
        shared = set(values[counts >= max(LEAST, SHARE * len(texts))].tolist()) - self._all
        if not shared:
            return
        beside: dict[int, list[str]] = {run: [] for run in shared}
        for one, own in zip(words, runs, strict=True):
            rest = " ".join(word for word in _outside(one, own, self._all | shared) if not re.search(r"\d", word))
            for run in shared.intersection(own.tolist()):
                beside[run].append(rest)
        new = sorted(run for run, rests in beside.items() if len(set(rests)) >= VARIED * len(rests))
        self.known += new[: MOST - len(self.known)]
        self._all = set(self.known)

    def text(self, messages: Messages) -> str:
        """What makes prompts alike: all of it, where no word is left beside the app's."""
        text = prompt_text(messages)
        if not self._all:
            return text
        words = _WORD.findall(text)
        left = _outside(words, _runs(words), self._all)
        if len(left) == len(words) or not any(character.isalpha() for word in left for character in word):
            return text
        return " ".join(left)


def prompt_text(messages: Messages) -> str:
    """A prompt's texts, case and white space aside. The system prompt is left out: all of a route's requests share
    it."""
    text = "\n".join(m["content"] for m in messages if m["role"] != "system").casefold()
    return " ".join(text.split())


def _runs(words: Sequence[str]) -> _Runs:
    """The hash of each RUN words that follow one another."""
    count = len(words) - RUN + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.array([_hash(word) for word in words], dtype=np.uint64)
    return np.asarray(sum(hashes[at : at + count] * _POWERS[at] for at in range(RUN)), dtype=np.uint64)


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())


def _outside(words: Sequence[str], runs: _Runs, known: set[int]) -> list[str]:
    """The words that stand in no known run."""
    found = np.zeros(len(words), dtype=bool)
    for at in [at for at, run in enumerate(runs.tolist()) if run in known]:
        found[at : at + RUN] = True
    return [word for word, inside in zip(words, found.tolist(), strict=True) if not inside]
