"""What stands in place of a find, as the route says: a surrogate, a placeholder, a hash; or the record is dropped."""

import hashlib
import re

from collector.errors import ScrubError
from collector.one_to_one import OneToOne
from router import CapturePolicy

PLACEHOLDER_DIGITS, HASH_DIGITS = 4, 16
SHORT = ("BUILDING_NUMBER", "ZIP_CODE")
LEAST_DIGITS = 5


class StandIns:
    """Of one record. `key`: of its conversation; `salt`: of the state folder, so that hashes can be joined by.
    `reversible`: all of them are surrogates, which the `pairs` turn back.

    `dropped`: the kinds found for which the policy drops the record. `pairs`: surrogate -> original.
    """

    def __init__(
        self, surrogates: OneToOne, *, key: bytes, salt: bytes, policy: CapturePolicy, reversible: bool = False
    ) -> None:
        self._surrogates = surrogates
        self._key = key
        self._salt = salt
        self._policy = policy
        self.reversible = reversible
        self.dropped: set[str] = set()
        self.pairs: dict[str, str] = {}

    def replaces(self, entity: str, span: str) -> bool:
        """Whether a find is replaced at all."""
        if self.reversible and entity in SHORT and mistakable(span):
            return False
        return self._policy.action(entity) != "keep"

    def of(self, entity: str, span: str, *, number: bool = False) -> str:
        """What stands there instead. `number`: it must be digits, so it is a surrogate whatever the policy says.
        Raises ScrubError where what can be turned back has run out."""
        action = "surrogate" if self.reversible else self._policy.action(entity)
        if action == "drop":
            self.dropped.add(entity)
        if not number and action == "placeholder":
            return f"<{entity}_{_digest(entity, span, self._key)[:PLACEHOLDER_DIGITS]}>"
        if not number and action == "hash":
            return _digest(entity, span, self._salt)[:HASH_DIGITS]
        if entity == "PERSON":  # word by word, so that "Jane Doe" and "Jane" agree
            return re.sub(r"[^\W\d_]+", lambda word: self._surrogate(entity, word.group()), span)
        return self._surrogate(entity, span)

    def _surrogate(self, entity: str, text: str) -> str:
        if mistakable(text):
            return self._surrogates.any_of(entity, text)
        try:
            made = self._surrogates.of(entity, text)
        except ValueError as error:
            if self.reversible:
                raise ScrubError("too_many_alike") from error
            return self._surrogates.any_of(entity, text)
        self.pairs.setdefault(made, text)
        return made


def mistakable(text: str) -> bool:
    """Whether a text is a number that is short enough to stand somewhere by chance."""
    found = re.findall(r"[^\W_]", text)
    return len(found) < LEAST_DIGITS and any(map(str.isdigit, found))


def _digest(entity: str, span: str, key: bytes) -> str:
    return hashlib.blake2b(f"{entity}\x00{plain(span)}".encode(), key=key, digest_size=8).hexdigest()


def plain(text: str) -> str:
    """Letters and digits alone, whatever their case: what makes two writings the same."""
    return "".join(c for c in text.casefold() if c.isalnum())
