"""The one choke point for text: whatever goes to a disk or a broker has been through here.

Every string, key and number of every field is looked at. A string that is JSON as a whole is looked at decoded, and
stays valid JSON. Kept words and declared values are never touched where they are a find, or stand in a text's persons
and addresses; an e-mail, card, IBAN, phone number or key is replaced whole even if a kept word is part of it.
"""

import bisect
import hashlib
import itertools
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from collector.cues import besides
from collector.errors import ScrubError
from collector.fields import NOTHING, Field, fields
from collector.kept import Kept, is_media, without, without_media
from collector.language import language
from collector.memorised import not_asked
from collector.one_to_one import OneToOne
from collector.plausible import MODELS, NAMES, Found, plausible
from collector.scrubbed import Beside, Scrubbed
from collector.stand_ins import StandIns, mistakable
from router import CapturePolicy
from router.policy_scrub import LANGUAGES, NEVER_KEPT

if TYPE_CHECKING:
    from collector.recognizers import Reading

VERSION = "rampart-1.4.0-int8/spacy-sm-3.8.0/forms-5"
MOST_CACHED = 20_000
DEEPEST = 40
LONGEST_FIELD = 200_000  # characters; a longer one is quarantined rather than held up for minutes

IN_PARTS = NAMES | {"ZIP_CODE", "BUILDING_NUMBER"}  # persons, places, addresses: kept words among them stay

Span = tuple[str, int, int]  # entity, start, end

DEFAULTS = CapturePolicy()  # of a route that nothing was said about


def version(policy: CapturePolicy) -> str:
    """Of the scrubber and a route's settings, as it stands in the record."""
    return f"{VERSION}/{policy.scrubbing}"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ; of two with the same key one would hide the other, so it is read as text."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


class Scrubber:
    """Loads the models once. `salt`: secret of this state folder. `routes`: each route's settings."""

    def __init__(self, salt: bytes, *, routes: Mapping[str, CapturePolicy]) -> None:
        from collector import recognizers  # noqa: PLC0415 - heavy: only a scrub worker pays for it
        from collector.forms import FORMS  # noqa: PLC0415 - heavy likewise
        from collector.surrogates import Surrogates  # noqa: PLC0415 - heavy likewise

        self._salt = hashlib.blake2b(salt, digest_size=32).digest()
        self._routes = dict(routes)
        self._engines = recognizers.engines()
        self._surrogates = Surrogates
        self.is_phone = recognizers.is_phone
        ranked = dict.fromkeys(form.entity for form in FORMS)
        self._rank = {entity: n for n, entity in enumerate(ranked)}  # the surer form wins where two overlap
        self._known: OrderedDict[bytes, Read] = OrderedDict()

    def scrub(
        self,
        values: list[Any],
        *,
        route: str,
        cluster: str,
        untouchable: Collection[str] = (),
        compared: Collection[int] = (),
        reversible: bool = False,
        beside: Beside | None = None,
    ) -> Scrubbed:
        """Replace personal data in JSON-like values, the request first. `cluster`: the conversation, which shares its
        surrogates.

        `untouchable`: strings that stay as they are. `compared`: positions of values that are compared with the first.
        `reversible`: an answer will be turned back by the `pairs`, so whatever is replaced gets a surrogate, and house
        numbers and postcodes so short that they could be any number stay. `beside`: what the values belong to.
        Raises ScrubError for what can't be looked at in full, or turned back, and for what the route's policy drops.
        """
        policy = self._routes.get(route, DEFAULTS)
        key = hashlib.blake2b(cluster.encode(), key=self._salt, digest_size=32).digest()
        own = values[:1] if beside is None else list(beside.values) if beside.drawn is not None else []
        surrogates = OneToOne(self._surrogates(key), own, beside.drawn if beside else None)
        stand_ins = StandIns(surrogates, key=key, salt=self._salt, policy=policy, reversible=reversible)
        work = _Work(self, stand_ins, Kept(frozenset(policy.keep), frozenset(untouchable)), policy.languages)
        clean, memorised = [], {}
        for position, value in enumerate(values):
            work.found = []
            clean.append(work.value(value))
            if position in compared and (new := not_asked(work.found, values[0])):
                memorised[position] = new
        if stand_ins.dropped:
            raise ScrubError(f"dropped_by_policy: {', '.join(sorted(stand_ins.dropped))}")
        return Scrubbed(clean, dict(work.entities), work.unread, memorised, stand_ins.pairs, surrogates.drawn)

    def spans(self, text: str, reading: "Reading" = "text") -> tuple[Span, ...]:
        """What is personal in a text: not overlapping, in order."""
        return self.read(text, reading).spans

    def read(
        self, text: str, reading: "Reading", languages: Collection[str] = LANGUAGES, field: Field = NOTHING
    ) -> "Read":
        """What is personal in a text that stands in a field, remembered by its keyed hash. A text in none of the
        languages is read as a label is: by the patterns alone."""
        name = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).digest()
        name += f"{reading}\0{field.entity}\0{field.words}".encode()
        known = self._known.get(name)
        if known is None or known.by_models is not (reading == "text" and known.language in (None, *languages)):
            spoken = language(text) if reading == "text" else None
            by_models = reading == "text" and spoken in (None, *languages)
            spans = self._in_field(text, "label" if reading == "text" and not by_models else reading, field)
            known = Read(spans, spoken, by_models)
            self._known[name] = known
            if len(self._known) > MOST_CACHED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
        return known

    def _in_field(self, text: str, reading: "Reading", field: Field) -> tuple[Span, ...]:
        """What the field says that a value is as a whole; or what would be found in the text `words: value`."""
        if len(text) > LONGEST_FIELD:
            raise ScrubError("field_too_long")
        if whole := field.whole(text.strip()):
            start = len(text) - len(text.lstrip())
            return ((whole, start, start + len(text.strip())),)
        before = f"{field.words}: " if field.words else ""
        spans = (
            (entity, max(a - len(before), 0), b - len(before)) for entity, a, b in self._find(before + text, reading)
        )
        # Of numbers under `token` few are secrets.
        return tuple(s for s in spans if s[2] > 0 and (reading != "number" or s[0] not in NEVER_KEPT))

    def _find(self, text: str, reading: "Reading") -> tuple[Span, ...]:
        found = self._engines[reading].analyze(text, language="en")
        kept: list[Found] = []
        of_models: list[Found] = []
        for r in found:
            by_model = r.recognition_metadata[r.RECOGNIZER_NAME_KEY] in MODELS
            (of_models if by_model else kept).append(Found(r.entity_type, r.start, r.end, r.score))
        if reading == "text":
            believed = plausible(text, of_models)
            kept += believed + besides(text, believed)
        spans: list[tuple[int, int, str]] = []  # sorted, not overlapping
        for r in sorted(kept, key=lambda r: (self._rank.get(r.entity_type, len(self._rank)), r.start - r.end, r.start)):
            first = bisect.bisect_right(spans, r.start, key=lambda span: span[1])
            after = bisect.bisect_left(spans, r.end, lo=first, key=lambda span: span[0])
            taken = [span[:2] for span in spans[first:after]]
            if not taken:
                spans.insert(first, (r.start, r.end, r.entity_type))
            elif r.entity_type in IN_PARTS:  # what is left of an address says something; of a number, little
                left = [(*bit, r.entity_type) for bit in without(taken, text, r.start, r.end)]
                spans[first:after] = sorted([*spans[first:after], *left])
        return tuple((entity, start, end) for start, end, entity in spans)


class Read(msgspec.Struct, frozen=True):
    """What was found in a text. `language`: the text's, where it can be told."""

    spans: tuple[Span, ...]
    language: str | None
    by_models: bool


class _Work:
    """One record's walk."""

    def __init__(self, scrubber: Scrubber, stand_ins: StandIns, kept: Kept, languages: Collection[str]) -> None:
        self._scrubber = scrubber
        self._stand_ins = stand_ins
        self._kept = kept
        self._languages = languages
        self.entities: Counter[str] = Counter()
        self.found: list[tuple[str, str]] = []  # of the value that is being walked
        self.unread = 0

    def value(self, value: Any, field: Field = NOTHING, depth: int = 0) -> Any:
        """`field`: what is said of the value by the key that it stands under, itself or with others in a list."""
        if depth > DEEPEST:
            raise ScrubError("too_deep")
        if isinstance(value, str):
            return self._string(value, field, depth)
        if isinstance(value, dict):
            return self._object(value, field, depth)
        if isinstance(value, list):
            return [self.value(v, field, depth + 1) for v in value]
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
            whole = self.value(int(value), field, depth)
            return value if whole == value else float(whole)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._number(value, field)
        if value is None or isinstance(value, (bool, float)):
            return value
        raise ScrubError("unknown_type")

    def _object(self, members: dict[str, Any], field: Field, depth: int) -> dict[str, Any]:
        clean: dict[str, Any] = {}
        for (key, value), of in zip(members.items(), fields(members, field), strict=True):
            media = is_media(key, members, field.key)
            if media and self._stand_ins.reversible:
                raise ScrubError("not_text")
            clean[_unused(self._key(key), clean)] = "" if media else self.value(value, of, depth + 1)
        return clean

    def _string(self, text: str, field: Field, depth: int) -> str:
        if (seen := without_media(text)) != text:
            if self._stand_ins.reversible:
                raise ScrubError("not_text")
            text = seen
        if text.lstrip()[:1] in ("{", "[", '"'):
            try:
                inner = json.loads(text, object_pairs_hook=_members)
            except (ValueError, RecursionError):
                return self._text(text, field=field)
            clean = self.value(inner, field, depth + 1)
            return text if clean == inner else json.dumps(clean, ensure_ascii=False)
        return self._text(text, field=field)

    def _key(self, key: str) -> str:
        """A key of words may hold a name, as any text; one without spaces is a label."""
        if key.isdecimal():
            return self._digits(key, NOTHING)
        return self._text(key, "text" if re.search(r"\S\s+\S", key) else "label")

    def _number(self, value: int, field: Field) -> int:
        """A card, what its key says that it is, or a phone as far as recognizers.is_phone can tell: it stays a number.
        Others stay as they are."""
        text = str(abs(value))
        clean = self._digits(text, field)
        return value if clean == text else int(clean) * (-1 if value < 0 else 1)

    def _digits(self, text: str, field: Field) -> str:
        read = field.says != "PHONE" and (len(text) >= 12 or field.tells)
        if read and (clean := self._text(text, "number", field)) != text:
            clean = re.sub(r"\D", "", clean) or "0"
        elif not self._scrubber.is_phone(text, field.says) or not self._replaces("PHONE", text):
            return text
        else:  # with its +, so that the surrogate is invalid in any country
            clean = self._replaced("PHONE", f"+{text}", number=True)[1:]
        if not mistakable(text):
            for written in (clean, str(int(clean))):
                self._stand_ins.pairs.setdefault(written, text)
        return clean

    def _text(self, text: str, reading: "Reading" = "text", field: Field = NOTHING) -> str:
        if (len(text) < 3 and not field.tells) or self._kept.whole(text):
            return text
        read = self._scrubber.read(text, reading, self._languages, field)
        self.unread += reading == "text" and not read.by_models
        spans = [s for s in read.spans if self._replaces(s[0], text[s[1] : s[2]])]
        kept = self._kept.places(text) if any(entity in IN_PARTS for entity, _, _ in spans) else []
        pieces, at = [], 0
        for entity, start, end in spans:
            for first, last in without(kept, text, start, end) if entity in IN_PARTS else [(start, end)]:
                pieces += [text[at:first], self._replaced(entity, text[first:last], number=reading == "number")]
                at = last
        return "".join([*pieces, text[at:]]) if pieces else text

    def _replaces(self, entity: str, span: str) -> bool:
        return self._stand_ins.replaces(entity, span) and not self._kept.whole(span)

    def _replaced(self, entity: str, span: str, *, number: bool = False) -> str:
        self.entities[entity] += 1
        self.found.append((entity, span))
        return self._stand_ins.of(entity, span, number=number)


def _unused(key: str, members: Collection[str]) -> str:
    """A key, or that with a number where two had the same surrogate: neither member is lost."""
    if key not in members:
        return key
    return next(numbered for n in itertools.count(2) if (numbered := f"{key}_{n}") not in members)
