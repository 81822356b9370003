"""Guesses of an answer's next tokens from the last answers, checked by the model in one pass with what it must read.

A student's answers to a narrow task repeat each other (`{"community": "` ... `"}`), and on a CPU a pass over few
tokens costs little more than a pass over one. A guess never changes an answer: each token is drawn from the model's
own logits, and what differs from the guess ends it. Text is never kept, only token ids, in memory, of a few answers.
"""

from collections import Counter, deque
from collections.abc import Sequence

REMEMBERED = 64
LONGEST_ANSWER = 128
LONGEST_GUESS = 16
AGREEMENT = 0.6  # a drafted token costs about a quarter of a pass of its own, so that a fair chance already pays


class Drafts:
    """The last answers, token by token, each with its end token."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, ...]] = deque(maxlen=REMEMBERED)

    def remember(self, answer: Sequence[int]) -> None:
        """Keep the beginning of an answer."""
        if answer:
            self._recent.append(tuple(answer[:LONGEST_ANSWER]))

    def begin(self) -> "Draft":
        """For one new answer."""
        return Draft(list(self._recent))


class Draft:
    """The remembered answers that begin like the one that is being decoded."""

    def __init__(self, candidates: list[tuple[int, ...]]) -> None:
        self._candidates = candidates
        self._at = 0

    def take(self, token: int) -> None:
        """The next token is known: answers that went another way fall out."""
        at = self._at
        self._candidates = [c for c in self._candidates if len(c) > at and c[at] == token]
        self._at += 1

    def guess(self, most: int) -> list[int]:
        """At most `most` tokens, as long as the answers agree. Few answers, and a short common beginning, are little
        evidence: they earn a short guess, which grows as it proves right."""
        left, at = self._candidates, self._at
        most = min(most, LONGEST_GUESS, at + len(left)) if left else 0
        found: list[int] = []
        while len(found) < most:
            counts = Counter(c[at] for c in left if len(c) > at)
            if not counts:
                break
            token, count = counts.most_common(1)[0]
            if count < AGREEMENT * len(left):
                break
            found.append(token)
            left = [c for c in left if len(c) > at and c[at] == token]
            at += 1
        return found
