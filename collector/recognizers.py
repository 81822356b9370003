"""The Presidio analyzers that hold our recognisers, and which digits alone are a phone number.

Heavy: only a scrub worker imports this.
"""

import re
from typing import Any, Literal

import phonenumbers
import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from collector import near
from collector.forms import AFTER, BEFORE, FORMS, find
from collector.rampart import RampartRecognizer
from collector.spacy_names import SpacyNames
from collector.writing import W

# number: the patterns alone. label, a JSON key without spaces: phone numbers too. text: and the models, for persons,
# addresses and identity numbers.
Reading = Literal["number", "label", "text"]

LEAST_DIGITS = 5  # of the shortest numbers that phonenumbers finds
_DIGIT = re.compile(r"\d")
PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "BR", "JP")


def is_phone(digits: str, says: str) -> bool:
    """Whether digits alone, such as a JSON number, are a phone number. `says`: what their key does (collector.fields).

    They are where it says so and they are 7 to 15; and, where it says nothing, 11 or 12 that are valid with their
    country's code. Of random numbers of 11 digits 22% are valid, of 12 digits 9%: under a telling key (`id`, `size`,
    `timestamp`) none is taken. Times in s, ms and µs have 10, 13 and 16 digits.
    """
    if not 7 <= len(digits) <= 15:
        return False
    if says or len(digits) not in (11, 12):
        return says == "PHONE"
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(f"+{digits}")))
    except phonenumbers.NumberParseException:
        return False


class FormRecognizer(EntityRecognizer):  # type: ignore[misc]
    """All that collector.forms finds."""

    def __init__(self) -> None:
        super().__init__(supported_entities=sorted({form.entity for form in FORMS}), name="Forms")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The spans of `text`, in characters."""
        return [RecognizerResult(entity, start, end, 1.0) for entity, start, end in find(text) if entity in entities]


class PhonesInText(PhoneRecognizer):  # type: ignore[misc]
    """Phone numbers that phonenumbers finds, where they are written as one, or a word near them says so."""

    def __init__(self) -> None:
        super().__init__(supported_regions=PHONE_REGIONS, supported_entity="PHONE", leniency=1, context=[])

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The spans of `text`, in characters. It looks once for each region, so not where there are too few digits."""
        if len(_DIGIT.findall(text)) < LEAST_DIGITS:
            return []
        found = super().analyze(text, entities, nlp_artifacts)
        return [r for r in found if _is_written_as_phone(text, r.start, r.end)]


_GROUPED = re.compile(r"\+|00\d|\(?\d{2,5}\)?(?:[ ./-]+\(?\d{1,5}\)?)+")
_OTHER_NUMBER = re.compile(r"\d{4}([-/.])\d\d\1\d\d(?:\D|$)|\d{1,2}([-/.])\d{1,2}\2\d{4}|\d+\.\d+$|\d+(?:, ?\d+)+$")


def _is_written_as_phone(text: str, start: int, end: int) -> bool:
    """Not part of a longer token; in groups, and no date, decimal or list; digits alone only beside a telling word."""
    before = text[max(start - BEFORE, 0) : start]
    if re.search(rf"[{W}.#-]$", before) or re.match(rf"[{W}-]|[./:]\d", text[end : end + 2]):
        return False
    number = text[start:end]
    if _OTHER_NUMBER.match(number):
        return False
    if _GROUPED.match(number) and not re.fullmatch(r"\d+", number):
        return True
    if re.search(r"@[\w.-]+[\"']?[,;|\t ]\s?[\"']?$", before):
        return True  # beside an e-mail, in a table
    return bool(near.PHONE.search(before) or near.PHONE.search(text[end : end + AFTER]))


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
    forms, phones = FormRecognizer(), PhonesInText()
    return {
        "number": _engine([forms]),
        "label": _engine([forms, phones]),
        "text": _engine([forms, phones, RampartRecognizer(), SpacyNames()]),
    }


def _engine(recognizers: list[EntityRecognizer]) -> AnalyzerEngine:
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=_NoNlp(), supported_languages=["en"])
