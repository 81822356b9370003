"""Secrets that an answer brings up by itself: keys, tokens, passwords and logins that stand nowhere in its request. By
the scrubber's patterns; its models aren't asked. Pure."""

import re

from collector.keys import KEY, PASSWORDS, PEM, WEBHOOKS
from collector.memorised import not_asked
from retrainer.data.curate import Example

SECRET_KINDS = frozenset(("SECRET", "PASSWORD", "URL_CREDENTIALS"))

_LOGINS = (r":\\?/\\?/[^\s/:@]*:[^\s\"'<>]+@", r"\bcurl\b[^\n]{0,300}?\s(?:-u|--user)")
_LIKE = [re.compile(p) for p in (KEY, *PEM, *PASSWORDS, *WEBHOOKS, *_LOGINS)]  # together they take three times as long
# What stands under a telling word is often none: a word, a number of tokens, a page's address, a sample's YOUR_API_KEY.
_DIGIT, _LETTER, _LINK = re.compile(r"\d"), re.compile(r"[^\W\d_]"), re.compile(r"\w+:\\?/")


def secret_like(text: str) -> bool:
    """Whether a text may hold a secret; quick, where the patterns with their checks are sure."""
    return any(pattern.search(text) for pattern in _LIKE)


def brought_up(example: Example) -> list[str]:
    """All of what a student would learn to say that may be a secret, and stands not in the request."""
    return [span for _, span in _found(example)]


def planted_in(example: Example) -> list[str]:
    """Those of `brought_up` that are surely no words, numbers or links: keys by their form, and passwords and logins
    with a letter and a digit."""
    if not _DIGIT.search(example.said):
        return []
    return [span for kind, span in _found(example) if kind == "SECRET" or _is_value(span)]


def _found(example: Example) -> list[tuple[str, str]]:
    if not secret_like(example.said):
        return []  # the patterns take seconds to load
    from collector.forms import find  # noqa: PLC0415 - heavy: Presidio

    found = [(kind, example.said[start:end]) for kind, start, end in find(example.said) if kind in SECRET_KINDS]
    return [each for each in found if not_asked([each], example.messages)]


def _is_value(span: str) -> bool:
    return bool(_DIGIT.search(span) and _LETTER.search(span)) and not _LINK.match(span)
