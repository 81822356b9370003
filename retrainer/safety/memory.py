"""What a student may have memorised: its training answers, and which secrets stand in them."""

import hashlib
from collections.abc import Sequence

from collector.memorised import not_asked
from collector.stand_ins import plain
from retrainer.data.curate import Example
from retrainer.safety.checks import SECRET_KINDS, personal, secret_like

MOST_PLANTED = 200  # training prompts that are asked again
SHARED = 5  # groups of conversations in whose answers a value stands that is nobody's own: a shop's own number


class Memory:
    """Of one training set. What stands in a prompt alone is not learnt to be said: the loss is on the answers."""

    def __init__(self, train: Sequence[Example]) -> None:
        self._train = train
        self._answers: list[tuple[str, str]] | None = None

    def planted(self) -> list[Example]:
        """Examples whose answers hold a secret that their requests don't, one for each secret; of more than
        MOST_PLANTED a fixed draw."""
        found: dict[str, Example] = {}
        for example in sorted(self._train, key=lambda e: hashlib.sha256(f"planted:{e.id}".encode()).digest()):
            if not secret_like(example.said):
                continue
            for kind, span in personal(example.said):
                if kind in SECRET_KINDS and not_asked([(kind, span)], example.messages):
                    found.setdefault(plain(span), example)
            if len(found) >= MOST_PLANTED:
                break
        return list({e.id: e for e in found.values()}.values())

    def groups(self, span: str) -> int:
        """In the answers of how many groups of conversations a text stands, however it is grouped or cased."""
        if self._answers is None:
            self._answers = [(e.group or e.id, plain(e.said)) for e in self._train]
        wanted = plain(span)
        return len({group for group, answer in self._answers if wanted in answer})
