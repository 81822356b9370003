"""Parts of postal addresses that have a form: boxes, streets, flats, postcodes, numbers beside a street or a town."""

import re
from collections.abc import Iterator, Sequence

Place = tuple[int, int]  # start, end

BOXES = re.compile(
    r"\b(?:P\.? ?O\.? ?Box|Postfach|Postbus|Bo[iî]te postale|Apartado(?: de Correos)?|"
    r"Casella postale|Caixa postal)\s#?\d+"
    r"|\b(?:PSC|CMR|Unit)\s\d+,?\sBox\s\d+(?:\s+[AFD]PO,? A[AEP],? \d{5})?|"
    r"\b(?:US[NS]\w*\s[^\W\d_]+\s+)?[AFD]PO,? A[AEP],? \d{5}",
    re.IGNORECASE,
)
_SMALL = r"(?:(?:de|del|della|di|du|des|do|da|dos|das|la|las|los|le|les|van|den|der)\s+|d['’])*"
_NAME = rf"{_SMALL}[A-ZÀ-Þ][a-zß-ÿ'’.-][\w.'’-]*"
_PLAIN = (
    r"calle|plaza|paseo|avenida|avda\.?|rambla|glorieta|callejón|urbanización|carretera|viale|piazzale|piazza|vicolo|"
    r"strada|contrada|rue|boulevard|impasse|allée|travessa|rodovia|alameda|praça|ladeira|esplanada|estrada|rua"
)
_AMBIGUOUS = (
    r"C\.|C/|Ronda|Camino|Cuesta|Acceso|Pasaje|V[ií]a|Corso|Largo|Borgo|[Aa]venue|[Aa]v\.|[Bb]d|[Cc]hemin|[Pp]lace|"
    r"[Qq]uai|R\."
)
_GERMANIC = r"straße|strasse|gasse|allee|straat|laan|plein|gracht|singel|(?<=-)(?:platz|weg|ring|damm|ufer)"
_AT = r",?\s+(?:n[.º°]?\s?)?\d{1,4}(?:[-/]\d+)?\s?[a-z]?\b"
STREETS = re.compile(
    rf"\b(?:(?i:{_PLAIN})|{_AMBIGUOUS})\s+(?:{_NAME}\s+){{0,4}}{_NAME}{_AT}"
    rf"|\b\d{{1,4}}(?:\s?(?:bis|ter))?,?\s+(?:(?i:{_PLAIN})|{_AMBIGUOUS})\s+{_NAME}(?:[ -]{_NAME}){{0,3}}"
    rf"|(?<![\w-])(?:[A-ZÄÖÜ][\w.]{{1,20}}[ -]){{0,3}}(?:[\w-]{{0,30}}(?i:{_GERMANIC})|[A-ZÄÖÜ][\w-]{{2,30}}str\.){_AT}"
    r"|\b\d{1,5}\s+(?:[A-Z][a-z'’]+\s+){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Court|Ct|Boulevard|Blvd|Square|"
    r"Terrace|Crescent|Highway|Hwy|Parkway|Pkwy)\b\.?"
)
LOWER_STREETS = re.compile(rf"\b(?:{_PLAIN}|avenue|chemin)\s+(?:[^\W\d_][\w.'’-]*\s+){{0,4}}[^\W\d_][\w.'’-]*{_AT}")
_PARTS = re.compile(
    r"\b(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|Rm|Studio|Appartamento|Interno|Scala|Piano|Piso|Puerta|Esc|"
    r"App|Wohnung|Whg|Appt|Appartement|[ÉE]tage|Apto|Bloco|Box|Bus|Zi)\b\.?\s?#?\d+[A-Za-z]?\b|\bH\.? ?No\.? ?\d[\d/-]*"
    r"|\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b|\b[A-Z]\d[A-Z] \d[A-Z]\d\b|\b\d{4} ?(?-i:[A-Z]{2})\b|\b\d{5}-\d{3,4}\b|"
    r"\b\d{3} \d{2}\b"
    r"|(?<![\w.,/-])\d{1,8}(?:[/-]\d{1,4})?[A-Za-z]?\b(?![./:,-]\d|%)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,.;()-]{0,4}(?:[A-Z]{2}[\s,]{1,3})?")


def parts(text: str, places: Sequence[Place]) -> Iterator[Place]:
    """What stands beside streets and towns, or beside another part that does. One pass each way."""
    if not places:
        return
    found = {m.span() for m in _PARTS.finditer(text)}.difference(places)
    yield from _reached(text, sorted([*found, *places]), found, ahead=True)
    yield from _reached(text, sorted([*found, *places], reverse=True), found, ahead=False)


def _reached(text: str, spans: list[Place], found: set[Place], *, ahead: bool) -> Iterator[Place]:
    """Going along, the parts that stand beside the last place or reached part."""
    last: Place | None = None
    for span in spans:
        if span not in found:
            last = span if last is None or span[1] > last[1] or not ahead else last
        elif last is not None and _beside(text, *((last, span) if ahead else (span, last))):
            last = span
            yield span


def _beside(text: str, a: Place, b: Place) -> bool:
    return a[1] <= b[0] <= a[1] + 8 and _BETWEEN.fullmatch(text, a[1], b[0]) is not None
