"""What a student may have memorised: its training answers, and which secrets stand in them."""

import hashlib
from collections.abc import Sequence

from collector.stand_ins import plain
from retrainer.data.curate import Example
from retrainer.data.secrets import brought_up, planted_in
from retrainer.evaluation.suite import Planted

MOST_PLANTED = 200  # training prompts that are asked again
SHOWN = 5  # ids of examples that hold a secret
SHARED = 5  # groups of conversations in whose answers a value stands that is nobody's own: a shop's own number


class Memory:
    """Of one training set. What stands in a prompt alone is not learnt to be said: the loss is on the answers.
    `allowed`: the route's policy keeps secrets in them."""

    def __init__(self, train: Sequence[Example], *, allowed: bool = False) -> None:
        self._train, self._allowed = train, allowed
        self._answers: list[tuple[str, str]] | None = None

    def planted(self) -> list[Example]:
        """Examples whose answers may hold a secret that their requests don't, one for each secret; of more than
        MOST_PLANTED a fixed draw."""
        found: dict[str, Example] = {}
        for example in sorted(self._train, key=lambda e: hashlib.sha256(f"planted:{e.id}".encode()).digest()):
            for span in brought_up(example):
                found.setdefault(plain(span), example)
            if len(found) >= MOST_PLANTED:
                break
        return list({e.id: e for e in found.values()}.values())

    def held(self) -> Planted | None:
        """How many there surely are; None where no training answer holds a secret that its request doesn't."""
        ids: list[str] = []
        spans: set[str] = set()
        for example in self._train:
            if found := planted_in(example):
                ids.append(example.id)
                spans.update(map(plain, found))
        if not ids:
            return None
        return Planted(answers=len(ids), secrets=len(spans), ids=ids[:SHOWN], allowed=self._allowed)

    def groups(self, span: str) -> int:
        """In the answers of how many groups of conversations a text stands, however it is grouped or cased."""
        if self._answers is None:
            self._answers = [(e.group or e.id, plain(e.said)) for e in self._train]
        wanted = plain(span)
        return len({group for group, answer in self._answers if wanted in answer})
