"""Patterns with checksums, and words that must stand near, for what has a form: numbers, addresses, keys.

Pieces of JSON in prose are not decoded; the patterns know an e-mail's `@` and a link's `/` as they are escaped in JSON,
links and HTML, and no other escapes. In a match the group `it`, where a pattern has one, is what was looked for.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import regex
from presidio_analyzer.predefined_recognizers import (
    DeSocialSecurityRecognizer,
    EsNieRecognizer,
    EsNifRecognizer,
    FiPersonalIdentityCodeRecognizer,
    ItFiscalCodeRecognizer,
    KrRrnRecognizer,
    SePersonnummerRecognizer,
)

from collector import near
from collector.checksums import ahv, card, cpf, crypto, iban, ip_address, luhn, mac_address, nir, ssn
from collector.keys import KEY, PASSWORDS, PEM, not_code

Check = Callable[[str], bool]

BEFORE, AFTER = 60, 12  # characters within which a telling word stands

AT = r"(?:[@\uff20]|\\u0040|%40|&\#64;|&commat;)"
EMAIL = rf"(?<![\w.%+-])[\w.%+-]+{AT}(?:[\w-]+\.)+(?:xn--[\w-]+|[^\W\d_]{{2,24}}(?![^\W_]))"  # of any alphabet

_QUAD = r"(?<![\w.])(?<!version )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)"
_SMALL = (
    r"(?<![\w.])(?!10\.|1\.1\.1\.|1\.0\.0\.|8\.8\.|9\.9\.9\.)(?:(?:[12]?\d|3[01])\.){3}(?:[12]?\d|3[01])(?![\w.]*\w)"
)
_DIGITS = r"(?<![\w.-])(?:\d[ -]?){11,18}\d(?![\w.-]*\d)"
_NUMBER = r"(?<![\w.])[A-Za-z]{0,6}\d[\w./-]*(?: [A-Za-z]{0,2}\d[\w./-]*)*\b"
_PHONE = r"\(?\d[\d ()/.-]{5,18}\d(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w-]|\.\d)"
_NINO = r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b"


class Form(msgspec.Struct, frozen=True):
    """What `pattern` finds is an `entity` where `check` says so, and where a word of `near` stands before or after it.
    `unless`: then it need not, where the match is not one of this.
    `after`: characters."""

    entity: str
    pattern: Any  # of the module regex, whose \w knows combining marks
    check: Check | None = None
    near: re.Pattern[str] | None = None
    unless: re.Pattern[str] | None = None
    after: int = AFTER


def _form(entity: str, *patterns: str, check: Check | None = None, **more: Any) -> list[Form]:
    return [Form(entity, regex.compile(pattern), check, **more) for pattern in patterns]


def _digits(least: int) -> Check:
    return lambda text: sum(c.isdigit() for c in text) >= least


def _short_phone(text: str) -> bool:
    """A number without its area, which phonenumbers takes for none; a date is none, either."""
    return 6 <= sum(c.isdigit() for c in text) <= 21 and not re.match(near.DATE, text)


# The surer first: where two overlap, it wins.
FORMS: tuple[Form, ...] = (
    *_form("SECRET", *PEM, KEY),
    *_form("PASSWORD", *PASSWORDS, check=not_code),
    *_form("URL_CREDENTIALS", r"(?<=:(?:/){2})[^\s/:@]+:[^\s/@]+(?=@)", r"(?<=:(?:\\/){2})[^\s/:@]+:[^\s/@]+(?=@)"),
    *_form("EMAIL", EMAIL),
    *_form("IBAN", r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b", check=iban),
    *_form("CARD", _DIGITS, check=card),
    *_form("CARD", _DIGITS, check=luhn, near=near.CARD),
    *_form("SSN", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", check=ssn),
    *_form("IP_ADDRESS", _QUAD, check=ip_address, near=near.HOST, unless=re.compile(_SMALL)),
    *_form(
        "IP_ADDRESS",
        r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}:?[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4})*(?![\w:])",
        r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])",
        check=lambda text: bool(re.search(r"\d", text) and re.search(r"^\w{4}:|:\w*:\w*:", text)) and ip_address(text),
    ),
    *_form(
        "MAC_ADDRESS",
        r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-]*\w)",
        r"(?<![\w.])(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}(?![\w.]*\w)",
        check=mac_address,
    ),
    *_form(
        "CRYPTO_ADDRESS",
        r"\b(?:bc1|tb1)[02-9ac-hj-np-z]{11,71}\b",
        r"\b0x[0-9A-Fa-f]{40}\b",
        r"\b[13][1-9A-HJ-NP-Za-km-z]{25,34}\b",
        check=crypto,
    ),
    *_form("ID_NUMBER", r"\b9\d\d-(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])-\d{4}\b"),  # US taxpayers
    *_form("ID_NUMBER", _NINO),  # UK national insurance
    *_form("ID_NUMBER", f"(?i){_NINO}", near=near.IDENTITY),
    *_form("ID_NUMBER", r"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b"),  # Indian taxpayers
    *_form("ID_NUMBER", r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b", check=cpf),
    *_form("ID_NUMBER", r"\b756\.\d{4}\.\d{4}\.\d{2}\b", check=ahv),
    *_form(
        "ID_NUMBER", r"\b[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}\b", check=nir
    ),
    *_form("ID_NUMBER", r"\b\d{8}-?[A-Z]\b", check=EsNifRecognizer().validate_result),
    *_form("ID_NUMBER", r"\b[XYZ]-?\d{7}-?[A-Z]\b", check=EsNieRecognizer().validate_result),
    *_form(
        "ID_NUMBER",
        r"\b[A-Za-z]{6}[\dL-Vl-v]{2}[A-Ta-t][\dL-Vl-v]{2}[A-Za-z][\dL-Vl-v]{3}[A-Za-z]\b",
        check=lambda text: bool(ItFiscalCodeRecognizer().validate_result(text.upper())),
    ),
    *_form("ID_NUMBER", r"\b\d{8}[A-Z]\d{3}\b", check=DeSocialSecurityRecognizer().validate_result),
    *_form("ID_NUMBER", r"\b\d{6}[-+]\d{4}\b", check=SePersonnummerRecognizer().validate_result),
    *_form("ID_NUMBER", r"\b\d{6}[-+A]\d{3}[0-9A-Y]\b", check=FiPersonalIdentityCodeRecognizer().validate_result),
    *_form("ID_NUMBER", r"\b\d{6}-[1-4]\d{6}\b", check=KrRrnRecognizer().validate_result),
    *_form("PASSPORT", _NUMBER, check=_digits(6), near=near.PASSPORT),
    *_form("DRIVING_LICENCE", _NUMBER, check=_digits(5), near=near.LICENCE),
    *_form("ID_NUMBER", _NUMBER, check=_digits(5), near=near.IDENTITY),
    *_form("BANK_ACCOUNT", _NUMBER, check=_digits(5), near=near.ACCOUNT),
    *_form("DATE_OF_BIRTH", near.DATE, near=near.BIRTH, after=40),
    *_form("AGE", *near.AGES),
    *_form("PHONE", rf"(?<![\w.+-])\+{_PHONE}", check=_digits(9)),
    *_form("PHONE", rf"(?<![\w.+-]){_PHONE}", check=_short_phone, near=near.PHONE),
    *_form(
        "ZIP_CODE",
        rf"{near.ZIP}(?P<it>\d{{3,6}}(?:[ -]?(?:\d{{2,4}}|[A-Z]{{2}}))?|(?i:[A-Z]{{1,2}}\d[A-Z\d]? ?\d[A-Z]{{2}}))\b",
    ),
)


def find(text: str) -> Iterator[tuple[str, int, int]]:
    """Every match of every form, as (entity, start, end); they may overlap. A label or a number is a text, too."""
    for form in FORMS:
        for match in form.pattern.finditer(text):
            start, end = match.span("it" if "it" in form.pattern.groupindex else 0)
            if form.check is not None and not form.check(text[start:end]):
                continue
            stands = form.near is None or _stands_near(form.near, form.after, text, start, end)
            if stands or (form.unless is not None and not form.unless.match(text, start, end)):
                yield form.entity, start, end


def _stands_near(words: re.Pattern[str], reach: int, text: str, start: int, end: int) -> bool:
    """Before it, in its sentence, or right after it, in its line."""
    before = re.split(r"[.!?]\s+(?=[A-Z])", text[max(start - BEFORE, 0) : start])[-1]
    after = text[end : end + reach].partition("\n")[0]
    return bool(words.search(before) or words.search(after))
