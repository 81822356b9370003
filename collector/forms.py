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
from collector.keys import KEY, PASSWORDS, PEM, WEBHOOKS, not_code
from collector.writing import END, START, W, plainly

Check = Callable[[str], bool]

_DATE = re.compile(near.DATE)

BEFORE, AFTER = 60, 12  # characters within which a telling word stands

AT = r"(?:[@\uff20]|\\u0040|%40|&\#64;|&commat;)"
_OTHER = rf"[^\W{W}]"  # a letter of a script that may write without spaces: an address ends where it begins
EMAIL = (
    rf"(?:(?<![{W}.%+-])[{W}.%+-]+|{_OTHER}{{1,20}}){AT}(?:[\w-]+\.)+"
    rf"(?:xn--[\w-]+|(?:(?![\d_])[{W}]){{2,24}}{END}|{_OTHER}{{2,10}})"
)

_QUAD = rf"(?<![{W}.])(?<!version )(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?!\.*[{W}])"
_SMALL = (
    rf"(?<![{W}.])(?!10\.|1\.1\.1\.|1\.0\.0\.|8\.8\.|9\.9\.9\.)(?:(?:[12]?\d|3[01])\.){{3}}(?:[12]?\d|3[01])"
    rf"(?!\.*[{W}])"
)
_DIGITS = rf"(?<![{W}.-])(?:\d[ -]?){{11,18}}\d(?![{W}.-]*\d)"
_GROUPS = (
    rf"(?<![{W}.-])(?:(?:\d{{4}}[\s.-]{{1,3}}){{3}}\d{{1,7}}|3[47]\d\d[\s.-]{{1,3}}\d{{6}}[\s.-]{{1,3}}\d{{5}})"
    rf"(?![{W}.-]*\d)"
)
_NUMBER = rf"(?<![{W}.])[A-Za-z]{{0,6}}\d[{W}./-]{{0,40}}(?: [A-Za-z]{{0,2}}\d[{W}./-]{{0,40}}){{0,12}}(?<=[{W}]){END}"
_PHONE = rf"\(?\d[\d ()/.-]{{5,18}}\d(?: ?(?:x|ext\.?) ?\d{{1,6}})?(?![{W}-]|\.\d)"
_NINO = rf"{START}[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{END}"


_DIGIT = re.compile(r"\d")


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
    """So many, and no date: of what is issued, the day may stand beside it."""
    return lambda text: sum(c.isdigit() for c in text) >= least and not _DATE.fullmatch(text)


def _short_phone(text: str) -> bool:
    """A number without its area, which phonenumbers takes for none; a date is none, either."""
    return 6 <= sum(c.isdigit() for c in text) <= 21 and not _DATE.match(text)


# The surer first: where two overlap, it wins.
FORMS: tuple[Form, ...] = (
    *_form("SECRET", *PEM, KEY, *WEBHOOKS),
    *_form("PASSWORD", *PASSWORDS, check=not_code),
    *_form(
        "URL_CREDENTIALS",
        r"(?<=:(?:/){2})[^\s/:@]*:[^\s/\"'<>]+(?=@)",
        r"(?<=:(?:\\/){2})[^\s/:@]*:[^\s/\"'<>]+(?=@)",
        rf"{START}curl{END}[^\n]{{0,300}}?\s(?:-u|--user)[ =]?[\"']?(?P<it>[^\s\"':]+:[^\s\"']{{3,}})",
    ),
    *_form("EMAIL", EMAIL),
    *_form(
        "IBAN",
        rf"{START}[A-Za-z]{{2}}\d{{2}}(?:[ -]?[A-Za-z0-9]{{4}}){{2,7}}(?:[ -]?[A-Za-z0-9]{{1,3}})?{END}",
        check=iban,
    ),
    *_form("CARD", _DIGITS, _GROUPS, check=card),
    *_form("CARD", _DIGITS, check=luhn, near=near.CARD),
    *_form("SSN", rf"(?<![{W}-])\d{{3}}-\d{{2}}-\d{{4}}(?![{W}-])", check=ssn),
    *_form("IP_ADDRESS", _QUAD, check=ip_address, near=near.HOST, unless=re.compile(_SMALL)),
    *_form(
        "IP_ADDRESS",
        rf"(?<![{W}:])(?:[0-9A-Fa-f]{{1,4}}:){{3,7}}:?[0-9A-Fa-f]{{1,4}}(?:::?[0-9A-Fa-f]{{1,4}})*(?![{W}:])",
        rf"(?<![{W}:])(?:[0-9A-Fa-f]{{1,4}}:){{1,6}}(?::[0-9A-Fa-f]{{1,4}}){{1,6}}(?![{W}:])",
        check=lambda text: bool(re.search(r"\d", text) and re.search(r"^\w{4}:|:\w*:\w*:", text)) and ip_address(text),
    ),
    *_form(
        "MAC_ADDRESS",
        rf"(?<![{W}:-])[0-9A-Fa-f]{{2}}([:-])(?:[0-9A-Fa-f]{{2}}\1){{4}}[0-9A-Fa-f]{{2}}(?![:-]*[{W}])",
        rf"(?<![{W}.])(?:[0-9a-f]{{4}}\.){{2}}[0-9a-f]{{4}}(?!\.*[{W}])",
        check=mac_address,
    ),
    *_form(
        "CRYPTO_ADDRESS",
        rf"{START}(?:bc1|tb1)[02-9ac-hj-np-z]{{11,71}}{END}",
        rf"{START}0x[0-9A-Fa-f]{{40}}{END}",
        rf"{START}[13][1-9A-HJ-NP-Za-km-z]{{25,34}}{END}",
        check=crypto,
    ),
    *_form("ID_NUMBER", rf"{START}9\d\d-(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])-\d{{4}}{END}"),  # US taxpayers
    *_form("ID_NUMBER", _NINO),  # UK national insurance
    *_form("ID_NUMBER", f"(?i){_NINO}", near=near.IDENTITY),
    *_form("ID_NUMBER", rf"{START}[A-Z]{{3}}[ABCFGHJLPT][A-Z]\d{{4}}[A-Z]{END}"),  # Indian taxpayers
    *_form("ID_NUMBER", rf"(?i){START}[A-Z]{{3}}[ABCFGHJLPT][A-Z]\d{{4}}[A-Z]{END}", near=near.IDENTITY),
    *_form("ID_NUMBER", rf"{START}\d{{3}}\.\d{{3}}\.\d{{3}}-\d{{2}}{END}", check=cpf),
    *_form("ID_NUMBER", rf"{START}756\.\d{{4}}\.\d{{4}}\.\d{{2}}{END}", check=ahv),
    *_form(
        "ID_NUMBER",
        rf"{START}[12] ?\d{{2}} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{{2}}|2[ABab]) ?\d{{3}} ?\d{{3}} ?\d{{2}}{END}",
        check=nir,
    ),
    *_form("ID_NUMBER", rf"{START}\d{{8}}-?[A-Z]{END}", check=EsNifRecognizer().validate_result),
    *_form("ID_NUMBER", rf"{START}[XYZ]-?\d{{7}}-?[A-Z]{END}", check=EsNieRecognizer().validate_result),
    *_form(
        "ID_NUMBER",
        rf"{START}[A-Za-z]{{6}}[\dL-Vl-v]{{2}}[A-Ta-t][\dL-Vl-v]{{2}}[A-Za-z][\dL-Vl-v]{{3}}[A-Za-z]{END}",
        check=lambda text: bool(ItFiscalCodeRecognizer().validate_result(text.upper())),
    ),
    *_form("ID_NUMBER", rf"{START}\d{{8}}[A-Z]\d{{3}}{END}", check=DeSocialSecurityRecognizer().validate_result),
    *_form("ID_NUMBER", rf"{START}\d{{6}}[-+]\d{{4}}{END}", check=SePersonnummerRecognizer().validate_result),
    *_form(
        "ID_NUMBER",
        rf"{START}\d{{6}}[-+A]\d{{3}}[0-9A-Y]{END}",
        check=FiPersonalIdentityCodeRecognizer().validate_result,
    ),
    *_form("ID_NUMBER", rf"{START}\d{{6}}-[1-4]\d{{6}}{END}", check=KrRrnRecognizer().validate_result),
    *_form("PASSPORT", _NUMBER, check=_digits(6), near=near.PASSPORT),
    *_form("DRIVING_LICENCE", _NUMBER, check=_digits(5), near=near.LICENCE),
    *_form("ID_NUMBER", _NUMBER, check=_digits(5), near=near.IDENTITY),
    *_form("BANK_ACCOUNT", _NUMBER, check=_digits(5), near=near.ACCOUNT),
    *_form("DATE_OF_BIRTH", near.DATE, near=near.BIRTH, after=40),
    *_form("AGE", *near.AGES),
    *_form("PHONE", rf"(?<![{W}.+-])\+{_PHONE}", check=_digits(9)),
    *_form("PHONE", rf"(?<![{W}.+-]){_PHONE}", check=_short_phone, near=near.PHONE),
    *_form(
        "ZIP_CODE",
        rf"{near.ZIP}(?P<it>\d{{3,6}}(?:[ -]?(?:\d{{2,4}}|[A-Z]{{2}}))?|"
        rf"(?i:[A-Z]{{1,2}}\d[A-Z\d]? ?\d[A-Z]{{2}})){END}",
    ),
)


_WITH_DIGITS = {
    "BANK_ACCOUNT", "CARD", "DATE_OF_BIRTH", "DRIVING_LICENCE", "IBAN", "ID_NUMBER", "PASSPORT", "PHONE", "SSN",
    "ZIP_CODE",
}  # fmt: skip
_WITHOUT = tuple(form for form in FORMS if form.entity not in _WITH_DIGITS)  # what a text without any may hold


def find(text: str) -> Iterator[tuple[str, int, int]]:
    """Every match of every form, as (entity, start, end); they may overlap. A label or a number is a text, too."""
    text, at = plainly(text)
    for entity, start, end in _find(text):
        yield (entity, start, end) if at is None else (entity, at[start], at[end - 1] + 1)


def is_valid_id(text: str) -> bool:
    """Whether a form finds an identity number, without any word near it."""
    plain, _ = plainly(text)
    alone = (form for form in FORMS if form.entity == "ID_NUMBER" and form.near is None)
    return any(form.check is None or form.check(match[0]) for form in alone for match in form.pattern.finditer(plain))


def _find(text: str) -> Iterator[tuple[str, int, int]]:
    matches: dict[Any, list[Any]] = {}  # by pattern, as several forms have the same
    for form in FORMS if _DIGIT.search(text) else _WITHOUT:
        if form.pattern not in matches:
            matches[form.pattern] = list(form.pattern.finditer(text))
        for match in matches[form.pattern]:
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
