"""Which of the models' finds to believe. They were trained on chats, forms and news; technical text is full of numbers,
and of words that are names too (Haskell, Lua, tina, balsa), which must not be masked: a student learns from what is
left.

Text that speaks of libraries, files and versions is technical: there a name alone must be nearly sure, a pair of them
fairly, and one among words about people a little. Elsewhere a find is believed. The thresholds are measured by
`benchmarks/pii_quality.py`, both ways.
"""

import re
from collections.abc import Sequence

import msgspec

from collector import near
from collector.addresses import BOXES, STREETS, parts
from collector.cues import ages, fields, named

NAMES = frozenset({"PERSON", "CITY", "STREET"})
NUMBERS = {
    "ID_NUMBER": near.IDENTITY,
    "PASSPORT": near.PASSPORT,
    "DRIVING_LICENCE": near.LICENCE,
    "BANK_ACCOUNT": near.ACCOUNT,
}
MODELS = ("Rampart", "spaCy")  # recognisers, by their names

NEAR = 60  # characters within which parts of one address stand
IN_CONTEXT, PAIR, ALONE = 0.7, 0.88, 0.98

_JOINED = re.compile(r"[\w@/\\_.:+-]")
_ENDS = re.compile(r"[.:,;-](?:\s|$)|$")
_PEOPLE = re.compile(
    r"\b(?:i|i'm|i've|i'd|my|me|mine|myself|we|our|us|he|she|him|her|his|hers|mr|mrs|ms|miss|dr|prof|sir|madam|dear|hi|"
    r"hello|hey|regards|sincerely|thanks|cheers|name|named|names|colleague|friend|neighbou?r|wife|husband|son|daughter|"
    r"mother|father|mom|mum|dad|brother|sister|aunt|uncle|cousin|boss|customer|patient|tenant|employee|tell|told|ask|"
    r"asked|said|says|spoke|met|born|lives?|lived|living|married|hired|visited|ship|deliver|address)\b",
    re.IGNORECASE,
)
_NOT_ENGLISH = re.compile(
    r"\b(?:der|die|das|und|ist|nicht|ich|mein|mit|fur|le|la|les|des|est|une|je|mon|avec|pour|el|los|las|una|es|mi|con|"
    r"para|por|il|lo|gli|che|sono|mio|per|het|een|niet|mijn|van)\b",
    re.IGNORECASE,
)
_TECHNICAL = re.compile(
    r"\b(?:apis?|algorithms?|backends?|binar(?:y|ies)|bindings?|browsers?|bytes?|class(?:es)?|cli|clients?|"
    r"command[ -]line|commits?|compil(?:ers?|ed|ing|ation)|config\w*|daemons?|databases?|debian|debug\w*|desktop|devel|"
    r"dns|docker|documentation|drivers?|editor|emulat\w+|encod\w+|errors?|extensions?|files?|fonts?|formats?|"
    r"frameworks?|frontends?|functions?|gnome|gnu|graphical|gui|haskell|headers?|html|https?|implement\w+|install\w*|"
    r"interfaces?|java|javascript|json|kde|kernel|languages?|librar(?:y|ies)|linux|manual|memory|metapackage|methods?|"
    r"modules?|npm|object-oriented|objects?|open source|packages?|parse[rs]?|parsing|patch(?:es)?|perl|php|plug-?ins?|"
    r"port \d+|profiling|programming|protocols?|python3?|qt\d?|releases?|repositor(?:y|ies)|ruby|runtime|scripts?|sdk|"
    r"servers?|shell|simulat\w+|software|source code|sql|stack|syntax|tcp|templat\w+|terminal|tests?|threads?|"
    r"toolkit|tools?|unix|upgrade[sd]?|urls?|utilit(?:y|ies)|variables?|versions?|viewer|warnings?|web|widgets?|"
    r"wrappers?|x11|xml|yaml)\b",
    re.IGNORECASE,
)
# Products that everybody knows; of those that are as often persons or places (Julia, Cairo) only the words around tell.
_TECHNOLOGIES = re.compile(
    r"\b(?:android|angular|ansible|apache|chrome|clojure|django|elixir|emacs|erlang|excel|fedora|firefox|flask|fortran|"
    r"github|gitlab|golang|gradle|jenkins|jupyter|kafka|keras|kotlin|kubernetes|latex|lua|macos|matlab|maven|mongodb|"
    r"mysql|nginx|numpy|octave|pandas|postgres(?:ql)?|pytorch|puppet|rails|react|redis|scala|tensorflow|terraform|tomcat|"
    r"typescript|ubuntu|vim|wayland|windows)\b",
    re.IGNORECASE,
)
_FUNCTION_WORDS = frozenset("a al am an at au by da de di do e em en et im in is it la le na no of on the to y zu".split())
_IDENTIFIERS = re.compile(
    r"\w::\w|\b[a-z]{2,}[A-Z]|\b[A-Z]+[a-z]+[A-Z][a-z]+[A-Z]|\b(?:lib|node|php|python3?|ruby|golang)\w*-[a-z]|"
    r"^(?!(?:address|card|cc|e?mail|from|iban|name|note|patient|phone|re|subject|summari[sz]e|to|translate)\b)[a-z0-9][a-z0-9.+-]+: |"
    r"\w\(\)|\b[a-z]+_[a-z]|(?<![\w.])\d+\.\d+\.\d+\b|"
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|WHERE|LIMIT)\b"
)
_LINKS = re.compile(r"\S+@\S+|\S+://\S+")


class Found(msgspec.Struct, frozen=True):
    """One find of a model, in characters. Named as Presidio's results are."""

    entity_type: str
    start: int
    end: int
    score: float


def is_technical(text: str) -> bool:
    """Whether a text speaks of software, or is full of identifiers; those in links and e-mails don't count."""
    plain = _LINKS.sub("", text)
    return any(words.search(plain) for words in (_TECHNICAL, _TECHNOLOGIES, _IDENTIFIERS))


def plausible(text: str, found: Sequence[Found]) -> list[Found]:
    """The finds that are believed, and the numbers beside believed places."""
    names = [f for f in found if f.entity_type in NAMES]
    if names:
        technical = is_technical(text)
        in_context = not technical or bool(_PEOPLE.search(text) or _NOT_ENGLISH.search(text))
        names = [f for f in names if _is_name(text, f, technical=technical, in_context=in_context)]
    names += [Found("PERSON", *span, 1.0) for span in named(text)]
    names += [Found(*field, 1.0) for field in fields(text)]
    names += [Found("STREET", *m.span(), 1.0) for pattern in (BOXES, STREETS) for m in pattern.finditer(text)]
    numbers = [f for f in found if f.entity_type not in NAMES and _is_number(text, f, names)]
    places = [(f.start, f.end) for f in (*names, *numbers) if f.entity_type not in ("PERSON", *NUMBERS)]
    numbers += [Found("AGE", *span, 1.0) for f in names if f.entity_type == "PERSON" for span in ages(text, f.end)]
    return names + numbers + [Found("BUILDING_NUMBER", *part, 1.0) for part in parts(text, places)]


def _is_name(text: str, find: Found, *, technical: bool, in_context: bool) -> bool:
    """A name is made of letters, and is no part of an identifier (`libjson-perl`, `foo.bar`, a lower-case `key:`)."""
    span = text[find.start : find.end]
    before, rest = text[max(find.start - 1, 0) : find.start], text[find.end : find.end + 2]
    if not re.search(r"[^\W\d_]{2}", span) or (find.entity_type != "STREET" and re.search(r"[\d_/\\:@]", span)):
        return False
    if not re.search(r"\s", text.strip()):
        return False  # a word that stands alone is a value
    if span.isupper() and not text.isupper() and (technical or len(span) < 5):
        return False  # capitals among other words are an acronym
    if _JOINED.fullmatch(before) or (_JOINED.match(rest) and not _ENDS.match(rest)):
        return False
    if span.islower() and rest.startswith(":"):
        return False
    if span in _FUNCTION_WORDS:
        return False
    if not technical:
        return True
    if _TECHNICAL.search(span) or _TECHNOLOGIES.search(span) or re.search(r"[a-z][A-Z]|[A-Z]{2}", span):
        return False
    if span.islower() and not (in_context and find.entity_type == "PERSON"):
        return False
    pair = re.search(r"[^\W\d_]{2}[\s-]+[^\W\d_]{2}", span)
    return find.score >= (IN_CONTEXT if in_context else PAIR if pair else ALONE)


def _is_number(text: str, find: Found, names: Sequence[Found]) -> bool:
    """An identity number is long, and a word says so; a house number or a postcode stands beside a street or a town."""
    span = text[find.start : find.end]
    digits = sum(c.isdigit() for c in span)
    if find.entity_type in NUMBERS:
        around = text[max(find.start - NEAR, 0) : find.end + NEAR]
        return digits >= 5 and any(words.search(around) for words in NUMBERS.values())
    beside = any(n.entity_type != "PERSON" and n.start - NEAR <= find.end and find.start <= n.end + NEAR for n in names)
    return digits > 0 and beside and not _JOINED.fullmatch(text[max(find.start - 1, 0) : find.start])
