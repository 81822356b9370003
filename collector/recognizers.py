"""Patterns with checksums for what has a form: numbers, addresses, keys. And the Presidio analyzers that hold them.

Pieces of JSON in prose are not decoded; the patterns know an e-mail's `@` and a link's `/` as they are escaped in JSON,
links and HTML, and no other escapes.
Heavy: only a scrub worker imports this.
"""

import re
from collections.abc import Callable
from typing import Literal

import phonenumbers
import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from collector.checksums import bitcoin, iban, ip_address, luhn, ssn
from collector.rampart import RampartRecognizer

Check = Callable[[str], bool]

# number: the patterns alone. label, a JSON key without spaces: phone numbers too. text: and the model, for persons,
# addresses and identity numbers.
Reading = Literal["number", "label", "text"]

PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "BR", "JP")

KEYS = (
    r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic
    r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
    r"\bgithub_pat_[A-Za-z0-9_]{30,}",
    r"\bglpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
    r"\bAIza[A-Za-z0-9_-]{35}",  # Google
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\bhf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JWT
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END [A-Z ]*PRIVATE KEY-----",
)

PASSWORDS = (
    r"(?<=\b(?i:api[_ -]?key|secret|token|password|passwd)[\"']?\s?[:=]\s?[\"']?)[^\s\"',;]{6,}",
    r"(?<=\b(?i:authorization)[\"']?\s?[:=]\s?[\"']?(?i:bearer|basic|digest|token)\s)[\w.~+/-]{6,}=*",
    r"(?<=\b(?i:bearer)\s)(?=\S*\d)[\w.~+/-]{8,}=*",  # without the header's name, words are told from tokens by a digit
    r"(?<=\b(?i:basic)\s)(?=\S*[\d=])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{12,}=*",
)

AT = r"(?:[@\uff20]|\\u0040|%40|&\#64;|&commat;)"
EMAIL = rf"(?<![\w.%+-])[\w.%+-]+{AT}(?:[\w-]+\.)+(?:xn--[\w-]+|[^\W\d_]{{2,24}}(?![^\W_]))"  # of any alphabet

# entity -> (patterns, what a match must also satisfy)
FORMS: dict[str, tuple[tuple[str, ...], Check | None]] = {
    "SECRET": (KEYS, None),
    "PASSWORD": (PASSWORDS, None),
    "URL_CREDENTIALS": ((r"(?<=:(?:\\?/){2})[^\s/:@]+:[^\s/:@]+(?=@)",), None),
    "EMAIL": ((EMAIL,), None),
    "CARD": ((r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.]*\d)",), luhn),
    "IBAN": ((r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?\b",), iban),
    "SSN": ((r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])",), ssn),
    "IP_ADDRESS": (
        (
            r"(?<![\w.])(?<!version )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)",
            r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}:?[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4})*(?![\w:])",
            r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,6}:[0-9A-Fa-f]{1,4}(?![\w:])",
        ),
        ip_address,
    ),
    "MAC_ADDRESS": ((r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",), None),
    "CRYPTO_ADDRESS": ((r"\b(?:bc1|tb1)[a-z0-9]{25,62}\b", r"\b0x[0-9A-Fa-f]{40}\b"), None),
    "BITCOIN_ADDRESS": ((r"\b[13][1-9A-HJ-NP-Za-km-z]{25,34}\b",), bitcoin),
}


# What a JSON key says of its value, by its last word or two, without a plural's s.
PHONE_WORDS = re.compile(r"cellphone|fax|landline|mobile|msisdn|phone|tel|telefon|telephone|whatsapp")
SECRET_WORDS = re.compile(
    r"apikey|passphrase|passwd|password|secret|(access|api|private|secret) key|(access|auth|bearer|refresh) token"
)
OTHER_WORDS = re.compile(
    r"amount|at|balance|barcode|byte|cent|cost|count|date|duration|ean|epoch|gtin|id|index|isbn|length|limit|ms|ns|offset|"
    r"order|population|price|quantity|revenue|second|seed|sequence|size|sku|sum|time|timestamp|token|total|upc|usage|version"
)
_NUMBER_WORDS = frozenset(("number", "num", "no", "nr"))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def key_says(key: str) -> Literal["PHONE", "PASSWORD", "OTHER", ""]:
    """What stands under a JSON key: `homePhone`, `tel_no`: a phone; `access_token`: a secret; `orderId`: neither."""
    words = [re.sub(r"(?<=[^s])s$", "", word) if len(word) > 2 else word for word in map(str.lower, _WORD.findall(key))]
    while len(words) > 1 and words[-1] in _NUMBER_WORDS:
        words.pop()
    last, two = words[-1] if words else "", " ".join(words[-2:])
    if PHONE_WORDS.fullmatch(last):
        return "PHONE"
    if SECRET_WORDS.fullmatch(last) or SECRET_WORDS.fullmatch(two):
        return "PASSWORD"
    return "OTHER" if OTHER_WORDS.fullmatch(last) else ""


def is_phone(digits: str, key: str) -> bool:
    """Whether digits alone, such as a JSON number, are a phone number.

    They are where their key says so and they are 7 to 15; and, where the key says nothing, 11 or 12 that are valid with
    their country's code. Of random numbers of 11 digits 22% are valid, of 12 digits 9%: under a telling key (`id`,
    `size`, `timestamp`) none is taken. Times in s, ms and µs have 10, 13 and 16 digits.
    """
    if not 7 <= len(digits) <= 15:
        return False
    says = key_says(key)
    if says or len(digits) not in (11, 12):
        return says == "PHONE"
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(f"+{digits}")))
    except phonenumbers.NumberParseException:
        return False


class _Form(PatternRecognizer):  # type: ignore[misc]
    """One entity's patterns, and the check that a match must pass."""

    def __init__(self, entity: str, patterns: tuple[str, ...], check: Check | None) -> None:
        self._check = check
        super().__init__(
            supported_entity=entity,
            patterns=[Pattern(f"{entity} {n}", pattern, 0.9) for n, pattern in enumerate(patterns)],
            global_regex_flags=0,
        )

    def validate_result(self, pattern_text: str) -> bool:
        """Presidio's hook: False drops the match."""
        return self._check is None or self._check(pattern_text)


class _NoNlp(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio wants a language pipeline. None is downloaded, and none is run: no recogniser of ours asks for words."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        self.nlp = {"en": spacy.blank("en")}

    def load(self) -> None:
        """Nothing to load."""

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """No words; spaCy takes seconds to cut a few thousand quotation marks into them."""
        return super().process_text("", language)


def engines() -> dict[Reading, AnalyzerEngine]:
    """One for each way of reading."""
    phones = PhoneRecognizer(supported_regions=PHONE_REGIONS, supported_entity="PHONE", leniency=1, context=[])
    return {"number": _engine([]), "label": _engine([phones]), "text": _engine([phones, RampartRecognizer()])}


def _engine(more: list[EntityRecognizer]) -> AnalyzerEngine:
    recognizers = [_Form(entity, patterns, check) for entity, (patterns, check) in FORMS.items()]
    registry = RecognizerRegistry(recognizers=[*recognizers, *more], supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=_NoNlp(), supported_languages=["en"])
