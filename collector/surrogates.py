"""What stands in place of personal data: of the same shape, the same within a conversation, unlinkable across them.

A student trained on the log then never learns to say a placeholder. Nobody has a surrogate: phone numbers are invalid,
cards and IBANs fail their checksums, addresses are of the ranges kept for documentation.
"""

import hashlib
import random
import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

import phonenumbers
from faker import Faker

from collector.checksums import luhn
from collector.english_words import has_a_word
from collector.forms import AT, is_valid_id

_NUMBERS = frozenset(("BANK_ACCOUNT", "CARD", "DRIVING_LICENCE", "IBAN", "ID_NUMBER", "PASSPORT", "SSN"))
MOST_DRAWS = 50  # of which nine in ten are nobody's
SHOWN = 4  # characters of a key that tell whose format it is


class Surrogates:
    """The surrogates of one conversation. `key`: secret, drawn from the salt and the conversation."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, entity: str, text: str) -> str:
        """The first surrogate of a text. Raises ValueError."""
        for _, made in self.draws(entity, text):
            return made
        raise ValueError(f"no surrogate of a {entity} differs from it")

    def draws(self, entity: str, text: str) -> Iterator[tuple[int, str]]:
        """The surrogates of a text, with the numbers of their draws; never the text itself."""
        make = _MAKERS.get(entity, _same_shape)
        for attempt in range(100):
            made = make(text, self._draw(*self.thing(entity, text), attempt))
            if made != text:
                yield attempt, made

    def digest(self, thing: tuple[str, str]) -> str:
        """16 hex digits in place of a thing, keyed as its surrogates are."""
        entity, text = thing
        return hashlib.blake2b(f"{entity}\x00{text}".encode(), key=self._key, digest_size=8).hexdigest()

    def thing(self, entity: str, text: str) -> tuple[str, str]:
        """What the text names: texts that name the same thing have the same surrogate, but for its shape."""
        return entity, _plain(entity, text)

    def _draw(self, entity: str, text: str, attempt: int) -> random.Random:
        seed = hashlib.blake2b(f"{entity}\x00{text}\x00{attempt}".encode(), key=self._key, digest_size=16).digest()
        return random.Random(seed)  # noqa: S311 - keyed by a secret; not a source of secrets


def _plain(entity: str, text: str) -> str:
    """What makes two texts the same thing: not their case, not how a number is grouped, nor how an @ is escaped."""
    if entity == "EMAIL":
        return re.sub(AT, "@", text, count=1).casefold()
    if entity == "PHONE":
        return re.sub(r"\D", "", text)
    if entity in _NUMBERS:
        return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text)).casefold()
    return text.casefold() if entity in ("PERSON", "CITY", "STREET") else re.sub(r"[\s-]", "", text).casefold()


@lru_cache(maxsize=1)
def _names() -> tuple[list[str], list[str], list[str], list[str]]:
    """First names, last names, cities and streets to choose from, in a fixed order; none that is an English word."""
    fake = Faker("en_US")
    fake.seed_instance(7)
    kinds = (fake.first_name, fake.last_name, fake.city, fake.street_name)
    return tuple(sorted({name for _ in range(1500) if not has_a_word(name := kind())}) for kind in kinds)  # type: ignore[return-value]


def _person(text: str, draw: random.Random) -> str:
    """Word by word, so that "Jane Doe" and a later "Jane" agree; each word's draw is its own."""
    firsts, lasts, _, _ = _names()
    return _cased(text, draw.choice(firsts + lasts))


def _cased(text: str, made: str) -> str:
    if text.isupper():
        return made.upper()
    return made.lower() if text.islower() else made


def _phone(text: str, draw: random.Random) -> str:
    return _until(lambda made: not any(_valid(made, region) for region in (None, "US", "GB", "DE")), text, draw)


@lru_cache(maxsize=20_000)  # of drawn numbers, which are nobody's; a conversation draws the same at each turn
def _valid(text: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _card(text: str, draw: random.Random) -> str:
    return _until(lambda made: not luhn(made), text, draw)


def _until(nobodys: Callable[[str], bool], text: str, draw: random.Random) -> str:
    """Of the same shape, and nobody's; of a form that every draw has, zeros for digits."""
    for _ in range(MOST_DRAWS):
        if nobodys(made := _same_shape(text, draw)):
            break
    else:
        made = re.sub(r"\d", "0", made)
    return made


def _id_number(text: str, draw: random.Random) -> str:
    """Of a form with a checksum it fails that. (What a model found may hold the word that says what it is.)"""
    return _until(lambda made: not is_valid_id(made), text, draw)


def _house(text: str, draw: random.Random) -> str:
    """An apartment stays one: `Apt. 12`, `Apt. 85`."""
    if not any(c.isdigit() for c in text):
        return _same_shape(text, draw)
    return re.sub(r"\d", lambda _: draw.choice(string.digits), text)


def _date(text: str, draw: random.Random) -> str:
    """A day in 1940 to 2005 in the same writing; day and month are 1 to 12, so either may come first."""

    def of(digits: re.Match[str]) -> str:
        if len(digits[0]) == 8:
            parts = r"(\d{4})(\d\d)(\d\d)" if digits[0][:2] in ("19", "20") else r"(\d\d)(\d\d)(\d{4})"
            return re.sub(r"\d+", of, " ".join(re.findall(parts, digits[0])[0])).replace(" ", "")
        if len(digits[0]) == 4:
            return str(draw.randrange(1940, 2006))
        if len(digits[0]) > 4:  # seconds since 1970
            return _same_shape(digits[0], draw)
        return str(draw.randrange(1, 10)) if len(digits[0]) == 1 else f"{draw.randrange(1, 13):02d}"

    return re.sub(r"\d+", of, text)


def _iban(text: str, draw: random.Random) -> str:
    """The country stays; check digits 00 are never right."""
    return text[:2] + "00" + _same_shape(text[4:], draw)


def _ip(text: str, draw: random.Random) -> str:
    return f"2001:db8::{draw.randrange(1, 0xFFFF):x}" if ":" in text else f"192.0.2.{draw.randrange(1, 255)}"


def _secret(text: str, draw: random.Random) -> str:
    if text.startswith("-----BEGIN"):
        head, _, rest = text.partition("KEY-----")
        return (
            f"{head}KEY-----\n{_letters(64, draw)}\n-----END {head.removeprefix('-----BEGIN ')}KEY-----"
            if rest
            else text
        )
    return text[:SHOWN] + _same_shape(text[SHOWN:], draw)


def _letters(count: int, draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_letters + string.digits, k=count))


def _same_shape(text: str, draw: random.Random) -> str:
    """Digits become digits and letters letters of the same case; all else stays."""
    kinds: tuple[tuple[Callable[[str], bool], str], ...] = (
        (str.isdigit, string.digits),
        (str.isupper, string.ascii_uppercase),
        (str.islower, string.ascii_lowercase),
    )
    return "".join(next((draw.choice(letters) for is_kind, letters in kinds if is_kind(c)), c) for c in text)


_MAKERS: dict[str, Callable[[str, random.Random], str]] = {
    "PERSON": _person,
    "CITY": lambda text, draw: _cased(text, draw.choice(_names()[2])),
    "STREET": lambda text, draw: _cased(text, draw.choice(_names()[3])),
    "EMAIL": lambda text, draw: f"{draw.choice(_names()[0]).lower()}.{draw.randrange(100, 999)}@example.com",
    "PHONE": _phone,
    "CARD": _card,
    "ID_NUMBER": _id_number,
    "DATE_OF_BIRTH": _date,
    "AGE": lambda text, draw: str(draw.randrange(18, 90)),
    "BUILDING_NUMBER": _house,
    "IBAN": _iban,
    "SSN": lambda text, draw: "9" + _same_shape(text[1:], draw),
    "IP_ADDRESS": _ip,
    "MAC_ADDRESS": lambda text, draw: "02:00:00:" + ":".join(f"{draw.randrange(256):02x}" for _ in range(3)),
    "URL_CREDENTIALS": lambda text, draw: f"{'user' * (text[0] != ':')}:{_letters(10, draw)}",
    "PASSWORD": lambda text, draw: _same_shape(text, draw) if text.isdecimal() else _letters(len(text), draw),
    "SECRET": _secret,
    "CRYPTO_ADDRESS": _secret,
}
