"""What a route's messages have in common: an instruction that an app writes before and after each user's words. Pure.

Such a frame says nothing of one request, and hides what does: beside a thousand characters of it two requests look
alike, and who reads a beginning alone reads nothing else.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import msgspec

SHARE = 0.9  # of the texts have it; of a flood of the same among other requests it must not be made
LEAST = 16  # characters, of both ends together
LEAST_TEXTS = 10  # of which fewer may be alike by chance
SEEN = 1000  # texts that it is learnt from


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A beginning and an end; both empty where there is none."""

    begins: str = ""
    ends: str = ""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Frame":
        """What SHARE of the texts begin and end with, up to whole words."""
        if len(texts) < LEAST_TEXTS:
            return cls()
        seen = texts[:: -(-len(texts) // SEEN)]
        begins = _whole(_common(seen, len(seen)))
        inner = [text[len(begins) :] for text in seen if text.startswith(begins)]
        ends = _whole(_common([text[::-1] for text in inner], len(seen)))[::-1]
        return cls(begins, ends) if len(begins) + len(ends) >= LEAST else cls()

    def inner(self, text: str) -> str:
        """What the text says within the frame; a text without it, or with no word within, as it is."""
        if len(text) < len(self.begins) + len(self.ends):
            return text
        if not (text.startswith(self.begins) and text.endswith(self.ends)):
            return text
        found = text[len(self.begins) : len(text) - len(self.ends)]
        return found if any(character.isalpha() for character in found) else text


def _common(texts: Sequence[str], count: int) -> str:
    """What SHARE of `count` texts begin with."""
    left, at = list(texts), 0
    while True:
        characters = Counter(text[at] for text in left if len(text) > at)
        most, number = max(characters.items(), key=lambda pair: pair[1], default=("", 0))
        if not number or number < SHARE * count:
            return left[0][:at] if left else ""
        left = [text for text in left if len(text) > at and text[at] == most]
        at += 1


def _whole(text: str) -> str:
    """Without a last word that may go on; scripts that are written without spaces have none."""
    while text and text[-1].isalnum() and unicodedata.east_asian_width(text[-1]) not in "WF":
        text = text[:-1]
    return text
