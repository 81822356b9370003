"""The one choke point for text: whatever goes to a disk or a broker has been through here.

Every string of every field is looked at, also inside JSON that stands in a string, which stays valid JSON.
"""

import hashlib
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from collector.errors import ScrubError
from collector.plausible import MODEL_ENTITIES, Found, plausible

VERSION = "rampart-1.4.0/forms-1"
MOST_CACHED = 20_000
DEEPEST = 40
LONGEST_FIELD = 200_000  # characters; a longer one is quarantined rather than held up for minutes

Span = tuple[str, int, int]  # entity, start, end


class Scrubbed(msgspec.Struct, frozen=True):
    """`values`: as they came, but for what was replaced. `entities`: how often each kind was."""

    values: list[Any]
    entities: dict[str, int]


def declared_values(request: Mapping[str, Any]) -> frozenset[str]:
    """The enum and const values of a declared schema: the answer's vocabulary, which is nobody's data."""
    shape = request.get("response_format")
    tools = request.get("tools")
    return frozenset(_enums(shape)) | frozenset(_enums(tools))


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


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ; of two with the same key one would hide the other, so it is read as text."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


class Scrubber:
    """Loads the models once. `salt`: secret of this state folder. `keep`: each route's words that stay as they are."""

    version = VERSION

    def __init__(self, salt: bytes, *, keep: Mapping[str, tuple[str, ...]]) -> None:
        from collector.recognizers import FORMS, everything, forms  # noqa: PLC0415 - heavy: only a scrub worker pays for it
        from collector.surrogates import Surrogates  # noqa: PLC0415 - heavy likewise

        self._salt = hashlib.blake2b(salt, digest_size=32).digest()
        self._keep = {route: frozenset(word.casefold() for word in words) for route, words in keep.items()}
        self._everything, self._forms = everything(), forms()
        self._surrogates = Surrogates
        self._rank = {entity: n for n, entity in enumerate(FORMS)}  # the surer form wins where two overlap
        self._known: OrderedDict[bytes, tuple[Span, ...]] = OrderedDict()

    def scrub(self, values: list[Any], *, route: str, cluster: str, untouchable: Collection[str] = ()) -> Scrubbed:
        """Replace personal data in JSON-like values. `cluster`: the conversation, which shares its surrogates.

        `untouchable`: strings that stay as they are. Raises ScrubError for what can't be looked at in full.
        """
        key = hashlib.blake2b(cluster.encode(), key=self._salt, digest_size=32).digest()
        work = _Work(self, self._surrogates(key), frozenset(untouchable), self._keep.get(route, frozenset()))
        return Scrubbed([work.value(value) for value in values], dict(work.entities))

    def spans(self, text: str, *, forms_only: bool = False) -> tuple[Span, ...]:
        """What is personal in a text: not overlapping, in order. Remembered by the text's keyed hash."""
        name = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).digest()
        name += bytes([forms_only])
        known = self._known.get(name)
        if known is None:
            known = self._find(text, forms_only=forms_only)
            self._known[name] = known
            if len(self._known) > MOST_CACHED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
        return known

    def _find(self, text: str, *, forms_only: bool) -> tuple[Span, ...]:
        if len(text) > LONGEST_FIELD:
            raise ScrubError("field_too_long")
        engine = self._forms if forms_only else self._everything
        found = engine.analyze(text, language="en")
        kept = [r for r in found if r.entity_type not in MODEL_ENTITIES] + plausible(
            text, [Found(r.entity_type, r.start, r.end, r.score) for r in found if r.entity_type in MODEL_ENTITIES]
        )
        spans: list[Span] = []
        for r in sorted(kept, key=lambda r: (self._rank.get(r.entity_type, len(self._rank)), r.start - r.end, r.start)):
            if all(r.end <= start or r.start >= end for _, start, end in spans):
                spans.append((r.entity_type, r.start, r.end))
        return tuple(sorted(spans, key=lambda span: span[1]))


class _Work:
    """One record's walk."""

    def __init__(self, scrubber: Scrubber, surrogates: Any, untouchable: frozenset[str], keep: frozenset[str]) -> None:
        self._scrubber = scrubber
        self._surrogates = surrogates
        self._untouchable = untouchable
        self._keep = keep
        self.entities: Counter[str] = Counter()

    def value(self, value: Any, depth: int = 0) -> Any:
        if depth > DEEPEST:
            raise ScrubError("too_deep")
        if isinstance(value, str):
            return self._string(value, depth)
        if isinstance(value, dict):
            return {self._text(k, forms_only=True): self.value(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(v, depth + 1) for v in value]
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
            whole = self.value(int(value), depth)
            return value if whole == value else float(whole)
        if isinstance(value, int) and not isinstance(value, bool) and len(str(value)) >= 12:
            return self._number(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise ScrubError("unknown_type")

    def _string(self, text: str, depth: int) -> str:
        if text.lstrip()[:1] in ("{", "["):
            try:
                inner = json.loads(text, object_pairs_hook=_members)
            except ValueError:
                return self._text(text)
            clean = self.value(inner, depth + 1)
            return text if clean == inner else json.dumps(clean, ensure_ascii=False)
        return self._text(text)

    def _number(self, value: int) -> int:
        """A card or a phone as a JSON number stays a number."""
        text = str(value)
        clean = self._text(text, forms_only=True)
        return value if clean == text else int(re.sub(r"\D", "", clean) or "0")

    def _text(self, text: str, *, forms_only: bool = False) -> str:
        if len(text) < 3 or text in self._untouchable:
            return text
        pieces, at = [], 0
        for entity, start, end in self._scrubber.spans(text, forms_only=forms_only):
            span = text[start:end]
            if span.casefold() in self._keep or span in self._untouchable:
                continue
            pieces += [text[at:start], self._replaced(entity, span)]
            at = end
        return "".join([*pieces, text[at:]]) if pieces else text

    def _replaced(self, entity: str, span: str) -> str:
        self.entities[entity] += 1
        if entity == "PERSON":
            return re.sub(r"[^\W\d_]+", lambda word: self._surrogates.of(entity, word.group()), span)
        made: str = self._surrogates.of(entity, span)
        return made
