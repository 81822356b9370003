"""What scrubbing leaves as it is: a route's kept words, models' names, the words of a request's schema; and what it
keeps nothing of, as nobody can look into it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from router import RoutePolicy


def untouchable(asked: Mapping[str, Any], route: str, policy: RoutePolicy) -> frozenset[str]:
    """What of a request stays as it is: its schema's words, and the names of models."""
    return declared_values(asked) | {route, *policy.claims, *(t.partition("/")[2] for t in policy.teachers)}


def declared_values(request: Mapping[str, Any]) -> frozenset[str]:
    """The enum and const values of a declared schema: the answer's vocabulary, which is nobody's data. In its tools and
    its shape, as Chat Completions and Responses have them, older ones too."""
    return frozenset(_enums([request.get(key) for key in ("response_format", "text", "tools", "functions")]))


def _enums(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "enum" and isinstance(inner, list):
                yield from (item for item in inner if isinstance(item, str))
            elif key == "const" and isinstance(inner, str):
                yield inner
            else:
                yield from _enums(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _enums(inner)


# An image, a sound, a file: nobody looks into it, so nothing of it stays but its type.
_LINKED = re.compile(
    r"(?i)(\bdata:(?:[\w.+-]+\\?/[\w.+-]+)?(?:;[\w.=-]+)*;base64,)(?:[A-Za-z0-9+/=_\s-]|\\[/nr]|%[0-9a-f]{2}){16,}"
)
_BASE64 = re.compile(r"(?=[^a-z]*[a-z])(?=[^0-9+/]*[0-9+/])[A-Za-z0-9+/_\s-]{1000,}={0,2}")
_ESCAPED = re.compile(r"\\([/nr])")
LEAST_RUN = 32  # characters between two spaces, on average: text has words, base64 has lines
_MEDIA_KEYS = frozenset(("file_data", "b64_json"))
_MEDIA_TYPES = frozenset(("media_type", "mime_type", "mimeType"))


def without_media(text: str) -> str:
    """A text without what base64 holds, in a link or as a whole."""
    if (seen := _LINKED.sub(r"\1", text)) != text:
        return seen
    return "" if len(text) >= 1000 and _is_base64(text) else text


def _is_base64(text: str) -> bool:
    """In either alphabet, on one line or several; a table's rules have more hyphens."""
    plain = _ESCAPED.sub(lambda sign: "/" if sign[1] == "/" else "\n", text)
    if not _BASE64.fullmatch(plain.rstrip()):
        return False
    return len(plain.split()) * LEAST_RUN <= len(plain) and plain.count("-") * 10 <= len(plain)


def is_media(key: str, members: Mapping[str, Any], above: str) -> bool:
    """Whether a member is base64 by its key, however short: a file's, an image's or a sound's, as Chat Completions,
    Responses, Anthropic and Gemini have them. `above`: the words of the object's own key. A link is none: its type is
    kept."""
    value = members[key]
    if not isinstance(value, str) or value[:5].lower() == "data:":
        return False
    says = above in ("input audio", "audio") or members.get("type") == "base64" or not _MEDIA_TYPES.isdisjoint(members)
    return key in _MEDIA_KEYS or (key == "data" and says)


class Kept:
    """What stays as it is. `words`: whatever their case. `exact`: as they are written."""

    def __init__(self, words: frozenset[str], exact: frozenset[str]) -> None:
        self._words = frozenset(word.casefold() for word in words)
        self._exact = exact
        terms = [f"(?i:{re.escape(term)})" for term in words if term] + [re.escape(term) for term in exact if term]
        longest_first = sorted(terms, key=len, reverse=True)
        self._pattern = rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)" if terms else None

    def whole(self, text: str) -> bool:
        """Whether a text as a whole is kept."""
        return text in self._exact or text.casefold() in self._words

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where kept words stand in a text."""
        return [found.span() for found in re.finditer(self._pattern, text)] if self._pattern else []


def without(kept: Iterable[tuple[int, int]], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A stretch of a text without what is kept of it, each bit from letter or digit to letter or digit."""
    edges = [start]
    for first, last in kept:
        if first < end and last > start:
            edges += [first, last]
    edges.append(end)
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        inner = [n for n in range(first, last) if text[n].isalnum()]
        if inner:
            yield inner[0], inner[-1] + 1
