"""What a JSON key says of its value: what it is as a whole, and the words that a text would have before it.

`{"dob": "1980-02-01"}` is read as `dob: 1980-02-01` would be, so the words are those of collector.near. Names and
places have no form: there the whole value is taken where it looks like one. A bare `name` is a person's where its
object, or the key above that, is about a person: not a function's, a schema's or a product's.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from collector import near

LONGEST_KEY = 60  # characters; a longer key is a text

PHONE_WORDS = re.compile(r"cellphone|fax|landline|mobile|msisdn|phone|tel|telefon|telephone|whatsapp")
SECRET_WORDS = re.compile(
    r"apikey|contraseña|passcode|passphrase|passwd|password|passwort|pwd|secret|senha|wachtwoord|"
    r"(access|api|private|secret) key|(access|auth|bearer|refresh) token"
)
OTHER_WORDS = re.compile(
    r"amount|at|balance|barcode|byte|cent|cost|count|date|duration|ean|epoch|gtin|id|index|isbn|length|limit|ms|ns|offset|"
    r"order|population|price|quantity|revenue|second|seed|sequence|size|sku|sum|time|timestamp|token|total|upc|usage|version"
)
_NUMBER_WORDS = frozenset(("number", "num", "no", "nr"))
_WORD = re.compile(r"[A-ZÀ-Þ]+(?![a-zß-ÿ])|[A-ZÀ-Þ]?[a-zß-ÿ]+|[^\W\d_A-Za-zÀ-ÿ]+")

# Nothing is said without the key above: `passport.number`, `name.first`.
_PART = re.compile(
    r"(?:(?:first|last|given|family|middle|full|home|work|number|num|no|nr|id|value|date|day|month|year|place|line|text)"
    r"(?: |$))+"
)
# Of a thing, and not the thing: `passport_count`, `max_age`, `server_version`.
_ABOUT = re.compile(
    r"(?:max|min|num|total|has|is)\b.*|.*\b(?:amount|at|balance|bytes?|cents?|cost|counts?|country|currency|duration|"
    r"enabled|expir\w+|format|index|issue[dr]|length|limit|ms|offset|price|provider|quantity|required|seconds|size|status|"
    r"sum|tokens|total|type|usage|valid|verified|versions?)"
)
_PEOPLE = (
    r"(?:account ?holder|applicant|attendee|beneficiary|billing|bill to|buyer|caller|candidate|card ?holder|child|"
    r"client|contact|customer|doctor|driver|employee|father|guardian|guest|holder|husband|kunde|landlord|lead|"
    r"member|mother|owner|parent|participant|passenger|patient|payee|payer|person|profile|recipient|sender|ship to|"
    r"shipping|spouse|student|subscriber|teacher|tenant|traveller|traveler|user|visitor|wife)s?|people|children"
)
# Whose bare value is a name, where it looks like one: not a customer, who may be a company, nor a user or an owner.
_PERSONS = (
    r"(?:applicant|attendee|beneficiary|card ?holder|employee|father|guardian|guest|husband|mother|participant|"
    r"passenger|patient|payee|payer|spouse|tenant|travell?er|visitor|wife)s?"
)
_ENTITIES = (
    (
        "PERSON",
        r"(?:first|last|given|family|middle|maiden|birth|full|legal|preferred|nick|sur|fore) ?names?|surname|forename|"
        r"(?:vor|nach|familien)name|pr[ée]nom|nom de famille|apellidos?|nombre completo|cognome|(?:achter|voor)naam|"
        rf"sobrenome|(?:{_PEOPLE}) (?:names?|first|last|given|family|middle)|[flm] ?name|(?:screen|user) ?name|"
        r"name on (?:the )?card|(?:account|card) ?holder|kontoinhaber|"
        r"names? (?:first|last|given|family|middle|full)",
    ),
    ("ONE OF PERSONS", _PERSONS),
    ("CODE", r"cvv|cvc|ccv|csc|otp(?: code)?|(?:verification|security|mfa) code|card (?:verification|security) value"),
    ("PIN", r"pin(?: ?(?:code|number))?"),
    ("ROUTING_NUMBER", r"(?:routing|aba)(?: (?:number|no|nr))?"),
    ("PLATE", r"(?:licen[cs]e|number|registration) ?plate(?: (?:number|no|nr))?|plate (?:number|no|nr)|kennzeichen"),
    (
        "CITY",
        r"city(?: name)?|(?:home ?)?town|(?:wohn|geburts)?ort|stadt|ville|ciudad|localidad|citt[àa]|comune|"
        r"(?:woon)?plaats|cidade|birth ?place|place of birth|birth place",
    ),
    ("STREET", r"street(?: name| address)?|stra(?:ß|ss)e|rue|calle|rua|address line"),
    ("ADDRESS", r"address(?: full| text| value)?|addr|anschrift|adresse|direcci[oó]n|indirizzo|adres|endereço"),
    ("BUILDING_NUMBER", r"(?:house|building|street|apartment|apt|flat) (?:number|no|nr)|hausnummer|huisnummer"),
    ("TOKEN", "token"),
    ("ZIP_CODE", r"zip(?: ?code)?|post(?:al)? ?code|plz|postleitzahl|code postal|c[oó]digo postal|cep"),
)
_KEYS = [(entity, re.compile(rf"(?:.+ )?(?:{words})")) for entity, words in _ENTITIES]
_AGE = re.compile(rf"(?:(?:{_PEOPLE}) )?(?:age|alter|edad|età|leeftijd|âge)")
_NUMBERS = (near.PASSPORT, near.LICENCE, near.IDENTITY, near.ACCOUNT, near.CARD, near.PHONE, near.HOST)

_NAME = re.compile(r"(?:display )?names?|nombre|nom|naam|nome")
_NAME_PARTS = frozenset(("first", "last", "given", "family", "middle"))
_OF_PERSONS = re.compile(
    r"(?:.+ )?(?:e ?mail|mail|gender|sex|nationality|age|birth\w*|date of birth|dob|ssn|surname)(?: address)?"
)
_OF_THINGS = re.compile(
    r"parameters|arguments|input schema|schema|price|sku|rating|reviews|website|opening hours|version|license"
)
_THINGS = re.compile(
    r"(?:.+ )?(?:function|tool|schema|product|item|compan(?:y|ie)|store|shop|restaurant|hotel|business|organi[sz]ation|"
    r"vendor|supplier|merchant|bank|venue|place|project|repository|package|model|file|team|department|event)e?s?"
)

_KINDS = {  # read by other words, or more strictly
    "ADDRESS": "STREET", "CODE": "PASSWORD", "ONE OF PERSONS": "PERSON", "PIN": "PASSWORD", "PLATE": "ID_NUMBER",
    "ROUTING_NUMBER": "BANK_ACCOUNT", "TOKEN": "PASSWORD",
}  # fmt: skip

# What a whole value must look like.
_NOBODY = (
    r"(?!(?i:n/?a|none|null|nil|unknown|anonymous|admin|postgres|mysql|ubuntu|git|adults?|children|infants?|assistant|system|user|bot|agent|tool|function|test|root|guest|any|"
    r"all|string|text|str|varchar|true|false|name|city|example_\w+)$)"
)
_LETTER = r"[^\W\d_]"
_CAPITALISED = rf"(?![a-zß-ÿ]){_LETTER}(?:{_LETTER}|['’.-])*"
_VALUES = {
    "PHONE": r"\+?(?:[\s().,/x-]*\d){7,15}",
    "PASSWORD": r"(?:(?i:bearer|basic|digest|token)\s)?\S{6,}",
    "TOKEN": r"(?=\S*\d)(?=\S*[A-Za-z])\S{8,}|\S{20,}",
    "PERSON": rf"{_NOBODY}{_LETTER}[\w'’.·-]*(?:,? (?:{_LETTER}[\w'’.·-]*)){{0,5}}",
    "ONE OF PERSONS": rf"{_NOBODY}{_CAPITALISED}(?: {_CAPITALISED}){{0,3}}",
    "CODE": r"\d{3,8}",
    "PIN": r"\d{4,8}",  # a pin of a chip has fewer
    "ROUTING_NUMBER": r"\d{8,9}",  # a number has no leading 0
    "PLATE": r"(?=.*\d)[A-ZÀ-Þ\d][\w .·-]{2,11}",
    "CITY": rf"{_NOBODY}{_LETTER}[^\d_\n;|\"@:<>{{}}\[\]]{{1,40}}",
    "STREET": rf"{_NOBODY}(?=[\s\S]*{_LETTER}{{3}})[^@:<>{{}}\[\]|\"_]{{3,200}}",
    "ADDRESS": rf"(?=[\s\S]*\d)(?=[\s\S]*\s)(?=[\s\S]*{_LETTER}{{3}})[^@:<>{{}}\[\]|\"_]{{6,200}}",
    "BUILDING_NUMBER": r"\d{1,5}(?:[ /-]?\w){0,3}",
    "ZIP_CODE": r"(?=.*\d)[A-Za-z\d][A-Za-z\d -]{2,9}",
    "DATE_OF_BIRTH": r"\d{1,4}([./-])\d{1,2}\1\d{1,4}(?:[T ][\d:.]+(?:Z|[+-][\d:]+)?)?|-?\d{1,4}|-?\d{6,13}",
}
_WHOLE = {entity: re.compile(form) for entity, form in _VALUES.items()}


class Field(msgspec.Struct, frozen=True):
    """What a key says. `key`: its words. `says`: whether a phone, a secret or surely neither stands under it. `words`:
    what a text would have before the value; none where they tell nothing, or nothing of a part of it. `entity`: what a
    value is that looks like one."""

    key: str = ""
    says: Literal["PHONE", "PASSWORD", "OTHER", ""] = ""
    words: str = ""
    entity: str = ""

    @property
    def tells(self) -> bool:
        """Whether the key says anything of what may be personal."""
        return bool(self.words or self.entity)

    def whole(self, value: str) -> str:
        """The entity that a value is as a whole, or none."""
        if not self.entity or not _WHOLE[self.entity].fullmatch(value):
            return ""
        return _KINDS.get(self.entity, self.entity)


NOTHING = Field()


def fields(members: Mapping[str, Any], above: Field) -> Iterable[Field]:
    """What the keys of an object say, in their order. `above`: under which it stands."""
    keys = {_words(key) for key in members if len(key) < 16}
    named = any(map(_NAME.fullmatch, keys)) or {"first", "last"} <= keys
    person = named and _about_person(members, above.key)
    parts = {"given", "family"} <= keys or (person and {"first", "last"} <= keys)
    return [_field(key, above.key, person, parts) if len(key) <= LONGEST_KEY else NOTHING for key in members]


def key_says(key: str) -> Literal["PHONE", "PASSWORD", "OTHER", ""]:
    """What stands under a key: `homePhone`, `tel_no`: a phone; `access_token`: a secret; `orderId`: neither. By its
    last word or two, without a plural's s."""
    words = [re.sub(r"(?<=[^s])s$", "", word) if len(word) > 2 else word for word in _words(key).split()]
    while len(words) > 1 and words[-1] in _NUMBER_WORDS:
        words.pop()
    last, two = words[-1] if words else "", " ".join(words[-2:])
    if PHONE_WORDS.fullmatch(last):
        return "PHONE"
    if SECRET_WORDS.fullmatch(last) or SECRET_WORDS.fullmatch(two):
        return "PASSWORD"
    return "OTHER" if OTHER_WORDS.fullmatch(last) else ""


@lru_cache(maxsize=20_000)
def _field(key: str, above: str, person: bool, parts: bool) -> Field:
    own = _words(key)
    words = f"{above} {own}" if above and _PART.fullmatch(own) else own
    says = key_says(words)
    if says in ("PHONE", "PASSWORD"):
        return Field(own, says, words, says)
    if not words or _ABOUT.fullmatch(words):
        return Field(own, says)
    if (person and _NAME.fullmatch(own)) or (parts and own in _NAME_PARTS):
        return Field(own, says, entity="PERSON")
    for entity, pattern in _KEYS:
        if pattern.fullmatch(words):
            return Field(own, says, words if entity == "ZIP_CODE" else "", entity)
    if near.BIRTH.search(words):
        return Field(own, says, words, "DATE_OF_BIRTH")
    telling = _AGE.fullmatch(words) or any(p.search(f"{words}:") for p in _NUMBERS)
    return Field(own, says, words if telling else "")


@lru_cache(maxsize=20_000)
def _words(key: str) -> str:
    """`dateOfBirth`, `date_of_birth`: "date of birth"."""
    return " ".join(map(str.lower, _WORD.findall(key)))


def _about_person(members: Mapping[str, Any], above: str) -> bool:
    """Whether an object with a name is about a person: a message, a `customer`, one with an e-mail or a birthday."""
    if {"role", "content"} <= members.keys():
        return members["role"] not in ("tool", "function")
    keys = [_words(key) for key in members if len(key) <= LONGEST_KEY]
    if _THINGS.fullmatch(above) or any(map(_OF_THINGS.fullmatch, keys)):
        return False
    return bool(re.fullmatch(_PEOPLE, above)) or any(map(_OF_PERSONS.fullmatch, keys))
