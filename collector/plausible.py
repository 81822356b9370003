"""Which of the model's finds to believe. It was trained on chats and forms; technical text is full of numbers, and of
words that are names too (Haskell, Lua, tina, balsa), which must not be masked: a student learns from what is left.

Names need context, as a reader would want it: a text that speaks of people lowers the score that is asked for; without
it a name alone must be nearly sure. The thresholds are measured by `benchmarks/scrub.py`, both ways.
"""

import re
from collections.abc import Sequence

import msgspec

NAMES = frozenset({"PERSON", "CITY", "STREET"})
MODEL_ENTITIES = NAMES | {"ZIP_CODE", "BUILDING_NUMBER", "ID_NUMBER"}

NEAR = 60  # characters within which parts of one address stand
IN_CONTEXT, PAIR, ALONE = 0.5, 0.85, 0.975

_JOINED = re.compile(r"[\w@/\\_.:+-]")
_ENDS = re.compile(r"[.:,;-](?:\s|$)|$")
_PEOPLE = re.compile(
    r"\b(?:i|i'm|i've|i'd|my|me|mine|myself|we|our|us|he|she|him|her|his|hers|mr|mrs|ms|miss|dr|prof|sir|madam|dear|hi|"
    r"hello|hey|regards|sincerely|thanks|cheers|name|named|names|colleague|friend|neighbou?r|wife|husband|son|daughter|"
    r"mother|father|mom|mum|dad|brother|sister|aunt|uncle|cousin|boss|customer|patient|tenant|employee|tell|told|ask|"
    r"asked|said|says|spoke|met|born|lives?|lived|living|married|hired|visited|ship|deliver|address)\b",
    re.IGNORECASE,
)
_NOT_ENGLISH = re.compile(
    r"\b(?:der|die|das|und|ist|nicht|ich|mein|mit|fur|le|la|les|des|est|une|je|mon|avec|pour|el|los|las|una|es|mi|con|"
    r"para|por|il|lo|gli|che|sono|mio|per|het|een|niet|mijn|van)\b",
    re.IGNORECASE,
)


class Found(msgspec.Struct, frozen=True):
    """One find of the model, in characters. Named as Presidio's results are."""

    entity_type: str
    start: int
    end: int
    score: float


def plausible(text: str, found: Sequence[Found]) -> list[Found]:
    """The finds that are believed."""
    in_context = bool(_PEOPLE.search(text) or _NOT_ENGLISH.search(text))
    names = [f for f in found if f.entity_type in NAMES and _is_name(text, f, in_context=in_context)]
    numbers = [f for f in found if f.entity_type not in NAMES and _is_number(text, f, names)]
    return names + numbers


def _is_name(text: str, find: Found, *, in_context: bool) -> bool:
    """A name is made of letters, and is no part of an identifier (`libjson-perl`, `foo.bar`, a lower-case `key:`)."""
    span = text[find.start : find.end]
    before, rest = text[max(find.start - 1, 0) : find.start], text[find.end : find.end + 2]
    if not re.search(r"[^\W\d_]{2}", span) or (find.entity_type != "STREET" and re.search(r"[\d_/\\:@]", span)):
        return False
    if not re.search(r"\s", text.strip()) or (span.isupper() and not text.isupper()):
        return False  # a word that stands alone is a value; capitals among other words are an acronym
    if _JOINED.fullmatch(before) or (_JOINED.match(rest) and not _ENDS.match(rest)):
        return False
    if span.islower() and rest.startswith(":"):
        return False
    needed = IN_CONTEXT if in_context else PAIR if re.search(r"[^\W\d_]{2}[\s-]+[^\W\d_]{2}", span) else ALONE
    return find.score >= needed


def _is_number(text: str, find: Found, names: Sequence[Found]) -> bool:
    """An identity number is long; a house number or a postcode stands beside a street or a town."""
    span = text[find.start : find.end]
    digits = sum(c.isdigit() for c in span)
    if find.entity_type == "ID_NUMBER":
        return digits >= 6 and not re.fullmatch(r"[0-9a-f]{7,}", span)
    near = any(n.entity_type != "PERSON" and n.start - NEAR <= find.end and find.start <= n.end + NEAR for n in names)
    return digits > 0 and near and not _JOINED.fullmatch(text[max(find.start - 1, 0) : find.start])
