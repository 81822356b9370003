"""Names that the words before them announce, in the languages that the models know, and ages after a name."""

import re
from collections.abc import Iterator, Sequence

from collector.addresses import BOXES, LOWER_STREETS, STREETS, parts
from collector.plausible import NUMBERS, Found, is_technical

_PART = r"(?:(?:van|von|de|der|den|del|della|di|da|do|dos|das|la|le|el|al|bin|ten|ter|zu|zur|af)\s+|d['’]|O['’])*"
_NAME = rf"{_PART}[A-ZÀ-Þ][\w'’-]+(?:\s+(?:[A-ZÀ-Þ]\.|{_PART}[A-ZÀ-Þ][\w'’-]+)){{0,3}}"
_TITLE = (
    r"Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Herrn?|Frau|Fräulein|Madame|Mme|Monsieur|M\.|Mlle|Mademoiselle|señora?|Sra|Sr|don|"
    r"doña|signora?|sig\.?ra|sig|dott|Mevrouw|Meneer|Dhr|Mevr|Mw|senhora?|dona"
)
_SAYS = (
    r"my name is|my name's|i am called|call me|this is|mein name ist|ich hei(?:ß|ss)e|je m['’]appelle|mon nom est|"
    r"me llamo|mi nombre es|mi chiamo|il mio nome è|mijn naam is|ik heet|meu nome é|me chamo|"
    r"kontoinhaber(?:in)?|account holder|"
    r"cardholder|holder|in the name of|im namen von|auf den namen|au nom de|a nombre de|intestat[oa] a|"
    r"op naam van|em nome de"
)
_FIELD = r"(?:full |first |last |sur)?name|nombre|nom|naam|nome|holder|from|to|absender|attn"
_TITLED = re.compile(rf"\b(?!(?:MS|DR|SR|MW|SIG)\b)(?i:{_TITLE})\b\.?\s+(?P<it>{_NAME})")
_SAID = re.compile(rf"\b(?i:{_SAYS})\b\s(?P<it>{_NAME})|(?m:^|[;,{{\s])(?i:{_FIELD})\s?[:=]\s?(?P<field>{_NAME})")
_ADDRESS = re.compile(
    r"(?m:^|[;,{\s])(?i:(?:home |postal |billing |shipping )?address|street|anschrift|adresse|straße|"
    r"direcci[oó]n|indirizzo|adres|endereço)\s?[:=]\s?(?P<it>(?=[^\n;|\"]*\d)[^\n;|\"@]*?[^\W\d_]{3}[^\n;|\"@]*)"
)
_TOWN = re.compile(
    r"(?m:^|[;,{\s])(?i:city|town|ort|stadt|wohnort|ville|ciudad|localidad|citt[aà]|comune|plaats|"
    r"woonplaats|cidade)\s?[:=]\s?(?P<it>[^\W\d_][^\n;|\",\d]{1,40})"
)
_AGE = re.compile(r"\s?\((?P<it>\d{1,2})\)|,\s(?P<aged>\d{1,2})(?=,)")


def besides(text: str, believed: Sequence[Found]) -> list[Found]:
    """What the text itself says beside what the models found, and what stands next to that."""
    technical = is_technical(text)  # `name: Build` and "this is Debian" are nobody's
    found = [Found("PERSON", *span, 1.0) for span in named(text, technical=technical)]
    found += [Found(*field, 1.0) for field in fields(text) if not technical]
    streets = (BOXES, STREETS, LOWER_STREETS) if text.islower() else (BOXES, STREETS)
    found += [Found("STREET", *m.span(), 1.0) for pattern in streets for m in pattern.finditer(text)]
    every = (*believed, *found)
    persons = [f for f in every if f.entity_type == "PERSON"]
    places = [(f.start, f.end) for f in every if f.entity_type not in ("PERSON", *NUMBERS)]
    found += [Found("PERSON", *span, 1.0) for span in again(text, persons)]
    found += [Found("AGE", *span, 1.0) for f in persons for span in ages(text, f.end)]
    return found + [Found("BUILDING_NUMBER", *part, 1.0) for part in parts(text, places)]


def named(text: str, *, technical: bool = False) -> Iterator[tuple[int, int]]:
    """Where a name is that a title or, but in technical text, a phrase announces."""
    for pattern in (_TITLED,) if technical else (_TITLED, _SAID):
        for match in pattern.finditer(text):
            yield match.span(match.lastgroup or 0)


def fields(text: str) -> Iterator[tuple[str, int, int]]:
    """What a form's `Street:` and `City:` say, as (entity, start, end)."""
    for entity, pattern in (("STREET", _ADDRESS), ("CITY", _TOWN)):
        for match in pattern.finditer(text):
            yield entity, *match.span("it")


def again(text: str, persons: Sequence[Found]) -> Iterator[tuple[int, int]]:
    """Where else a found name's words stand, as they are written: Jane Doe is Jane in the next line."""
    words = {word for f in persons for word in re.findall(r"[^\W\d_]{3,}", text[f.start : f.end]) if word[0].isupper()}
    if words:
        for match in re.finditer(rf"\b(?:{'|'.join(sorted(words))})\b", text):
            if not any(f.start <= match.start() < f.end for f in persons):
                yield match.span()


def ages(text: str, end: int) -> Iterator[tuple[int, int]]:
    """The age right after a name that ends at `end`: `Jane Doe (34)`, `Jane Doe, 34, said`."""
    match = _AGE.match(text, end)
    if match:
        yield match.span("it") if match["it"] else match.span("aged")
