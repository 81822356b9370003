"""Putting the originals back in place of surrogates, in text that may come in pieces.

Cheap enough for a worker's loop: no pattern is compiled for a request, and of a stream only the last characters wait,
those that could still become a surrogate.
"""

import json
import re
from collections.abc import Mapping

import msgspec

LONGEST = 4096  # characters of a surrogate that are looked for, and so the most that is held back

# Where a word begins, and every other sign; an underscore parts words, as it emphasises them in Markdown.
_STARTS = re.compile(r"(?<![^\W_])[^\W_]|[^\w\s]|_")
_BEGINS = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Za-z]|[^\s0-9A-Za-z]")
_NUMBER = re.compile(r"[+A-Z]{0,2}\d[\dA-Z\s()-]*")
_SEPARATORS = re.compile(r"[\s()-]")
_ESCAPE = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:")
_text = msgspec.json.Decoder(str)


class Originals:
    """What stands for what: surrogates as they are written and as an answer may write them (capitals, none, a number
    without its separators) with the originals in the same form."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        forms = {made: original for made, original in pairs.items() if made}
        for made, original in pairs.items():
            for other, theirs in _forms(made, original):
                forms.setdefault(other, theirs)
        self._first_bytes = {form[0].encode()[:1] for form in forms}
        self._by_first: dict[str, list[tuple[str, str]]] = {}
        for form in sorted(forms, key=len, reverse=True):
            if len(form) <= LONGEST:
                self._by_first.setdefault(form[0], []).append((form, forms[form]))

    def find(self, text: str, at: int, *, final: bool) -> tuple[int, int, str | None] | None:
        """The next surrogate from `at` on: its start, end and original. None as the original: from the start on it
        could still become one; only where the text goes on, so not where this is `final`."""
        size = len(text)
        for begin in _STARTS.finditer(text, at):
            forms = self._by_first.get(begin[0])
            if forms is None:
                continue
            start = begin.start()
            for form, original in forms:
                end = start + len(form)
                if end < size or (final and end == size):
                    if text.startswith(form, start) and not (end < size and form[-1].isalnum() and text[end].isalnum()):
                        return start, end, original
                elif not final and form.startswith(text[start:]):
                    return start, size, None
        return None

    def harmless(self, said: bytes) -> bool:
        """Whether no surrogate can begin in a piece of a text, in UTF-8, by a look at where its words begin."""
        return self._first_bytes.isdisjoint(_BEGINS.findall(said))

    def text(self, text: str) -> str:
        """A whole text, JSON or not, with its originals."""
        return Window(self).feed(text, final=True)

    def body(self, body: bytes) -> bytes:
        """A whole body with its originals: in the values of its JSON strings, the rest of it as it came."""
        if body.lstrip()[:1] not in (b"{", b"[", b'"'):
            try:
                plain = body.decode()
            except UnicodeDecodeError:
                return body
            return self.text(plain).encode()
        return _STRING.sub(self._string, body)

    def _string(self, found: re.Match[bytes]) -> bytes:
        token = found[0]
        if _COLON.match(found.string, found.end()):
            return token  # a key
        try:
            text = _text.decode(token)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return token
        back = self.text(text)
        return token if back == text else msgspec.json.encode(back)


class Window:
    """One text of a stream. Text that is JSON, as a tool's arguments are, stays so: originals are escaped in it, and
    surrogates found however they are escaped.

    `before`: the character before what comes next. `idle`: nothing is held back, and a piece in which no surrogate can
    begin, and no escape, need not be fed where `before` is set to its last character.
    """

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._held = ""
        self.before = ""
        self.idle = False
        self._json: bool | None = None  # not known before there is more than space

    def feed(self, piece: str, *, final: bool = False) -> str:
        """The next piece in, and out what may go on. `final`: nothing follows, so all of it may."""
        raw = self._held + piece
        if self._json is None and (begun := raw.lstrip()):
            self._json = begun[0] in "{["
        if self._json and "\\" in raw:
            text, places = _unescaped(raw, final=final)
        else:
            text, places = raw, None
        whole = self.before + text
        shift = len(self.before)
        out: list[str] = []
        at = shift
        while (found := self._originals.find(whole, at, final=final)) is not None:
            start, end, original = found
            out.append(_cut(raw, places, at - shift, start - shift))
            at = start
            if original is None:
                break
            out.append(msgspec.json.encode(original)[1:-1].decode() if self._json else original)
            at = end
        else:
            out.append(_cut(raw, places, at - shift, len(text)))
            at = len(whole)
        self._held = raw[at - shift if places is None else places[at - shift] :]
        self.before = whole[at - 1 : at] if at else ""
        self.idle = not self._held and self._json is not None
        return "".join(out)

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)


def _cut(raw: str, places: list[int] | None, start: int, end: int) -> str:
    return raw[start:end] if places is None else raw[places[start] : places[end]]


def _unescaped(raw: str, *, final: bool) -> tuple[str, list[int]]:
    """Part of a JSON text with its escapes read, and where each character of that stands, and the end, in `raw`. An
    escape that is cut off at the end is left out, unless this is `final`."""
    out: list[str] = []
    places: list[int] = []
    at = 0
    while at < len(raw):
        sign = raw[at]
        size = 1
        if sign == "\\":
            if escape := _ESCAPE.match(raw, at):
                size = len(escape[0])
                sign = json.loads(f'"{escape[0]}"')
            elif len(raw) - at < 6 and not final:
                break
        out.append(sign)
        places.append(at)
        at += size
    places.append(at)
    return "".join(out), places


def _forms(made: str, original: str) -> list[tuple[str, str]]:
    found = []
    if "@" in made or not any(map(str.isdigit, made)):  # a key in another case is none
        found = [(change(made), change(original)) for change in (str.upper, str.lower, _capitalised, str.title)]
    if _NUMBER.fullmatch(made) and sum(map(str.isdigit, made)) >= 7:
        found.append((_SEPARATORS.sub("", made), _SEPARATORS.sub("", original)))
    return found


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
