"""What stands in place of a find, as the route says: a surrogate, a placeholder, a hash; or the record is dropped."""

import hashlib
import re
from typing import Any

from router import CapturePolicy

PLACEHOLDER_DIGITS, HASH_DIGITS = 4, 16


class StandIns:
    """Of one record. `key`: of its conversation; `salt`: of the state folder, so that hashes can be joined by.

    `dropped`: the kinds found for which the policy drops the record.
    """

    def __init__(self, surrogates: Any, *, key: bytes, salt: bytes, policy: CapturePolicy) -> None:
        self._surrogates = surrogates
        self._key = key
        self._salt = salt
        self._policy = policy
        self.dropped: set[str] = set()

    def replaces(self, entity: str) -> bool:
        """Whether a find of this kind is replaced at all."""
        return self._policy.action(entity) != "keep"

    def of(self, entity: str, span: str, *, number: bool = False) -> str:
        """What stands there instead. `number`: it must be digits, so it is a surrogate whatever the policy says."""
        action = self._policy.action(entity)
        if action == "drop":
            self.dropped.add(entity)
        if not number and action == "placeholder":
            return f"<{entity}_{_digest(entity, span, self._key)[:PLACEHOLDER_DIGITS]}>"
        if not number and action == "hash":
            return _digest(entity, span, self._salt)[:HASH_DIGITS]
        if entity == "PERSON":  # word by word, so that "Jane Doe" and "Jane" agree
            return re.sub(r"[^\W\d_]+", lambda word: self._surrogates.of(entity, word.group()), span)
        made: str = self._surrogates.of(entity, span)
        return made


def _digest(entity: str, span: str, key: bytes) -> str:
    return hashlib.blake2b(f"{entity}\x00{plain(span)}".encode(), key=key, digest_size=8).hexdigest()


def plain(text: str) -> str:
    """Letters and digits alone, whatever their case: what makes two writings the same."""
    return "".join(c for c in text.casefold() if c.isalnum())
