"""Patterns with checksums for what has a form: numbers, addresses, keys. And the Presidio analyzer that holds all.

Heavy: only a scrub worker imports this.
"""

from collections.abc import Callable

import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from collector.checksums import bitcoin, iban, ip_address, luhn, ssn
from collector.rampart import RampartRecognizer

Check = Callable[[str], bool]

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

# entity -> (patterns, what a match must also satisfy)
FORMS: dict[str, tuple[tuple[str, ...], Check | None]] = {
    "SECRET": (KEYS, None),
    "PASSWORD": ((r"(?<=\b(?i:api[_ -]?key|secret|token|password|passwd)[\"']?\s?[:=]\s?[\"']?)[^\s\"',;]{6,}",), None),
    "URL_CREDENTIALS": ((r"(?<=://)[^\s/:@]+:[^\s/:@]+(?=@)",), None),
    "EMAIL": ((r"\b[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b",), None),
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
    """Presidio wants a language pipeline; none of our recognisers needs more than words, and none is downloaded."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        self.nlp = {"en": spacy.blank("en")}

    def load(self) -> None:
        """Nothing to load."""


def forms() -> AnalyzerEngine:
    """The patterns alone: fast, and language-free."""
    return _engine([])


def everything() -> AnalyzerEngine:
    """Patterns, phone numbers, and the model for persons, addresses and identity numbers."""
    phones = PhoneRecognizer(supported_regions=PHONE_REGIONS, supported_entity="PHONE", leniency=1)
    return _engine([phones, RampartRecognizer()])


def _engine(more: list[EntityRecognizer]) -> AnalyzerEngine:
    recognizers = [_Form(entity, patterns, check) for entity, (patterns, check) in FORMS.items()]
    registry = RecognizerRegistry(recognizers=[*recognizers, *more], supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=_NoNlp(), supported_languages=["en"])
