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
from collector.language import is_english
from collector.writing import W

NAMES = frozenset({"PERSON", "CITY", "STREET"})
NUMBERS = {
    "ID_NUMBER": near.IDENTITY,
    "PASSPORT": near.PASSPORT,
    "DRIVING_LICENCE": near.LICENCE,
    "BANK_ACCOUNT": near.ACCOUNT,
}
MODELS = ("Rampart", "spaCy")  # recognisers, by their names

NEAR = 60  # characters within which parts of one address stand
IN_CONTEXT, PAIR, ALONE = 0.5, 0.88, 0.98

_JOINED = re.compile(r"[\w@/\\_.:+-]")
_ENDS = re.compile(r"[.:,;-](?:\s|$)|$")
_PEOPLE = re.compile(
    r"\b(?:i|i'm|i've|i'd|my|me|mine|myself|we|our|us|he|she|him|her|his|hers|mr|mrs|ms|miss|dr|prof|sir|madam|dear|hi|"
    r"hello|hey|regards|sincerely|thanks|cheers|name|named|names|colleague|friend|neighbou?r|wife|husband|son|daughter|"
    r"mother|father|mom|mum|dad|brother|sister|aunt|uncle|cousin|boss|customer|patient|tenant|employee|tell|told|ask|"
    r"asked|said|says|spoke|met|born|lives?|lived|living|married|hired|visited|ship|deliver|address)\b",
    re.IGNORECASE,
)
# Words of software alone; and words of software that others use, too, of which one is not enough beside people.
_TECHNICAL = re.compile(
    r"\b(?:apis?|backends?|binar(?:y|ies)|bindings?|bytes?|cli|command[ -]line|compil(?:ers?|ed|ing|ation)|config\w*|"
    r"daemons?|debian|debug\w*|devel|dns|docker|emulat\w+|encod\w+|fonts?|frameworks?|frontends?|gnome|gnu|graphical|gui|"
    r"haskell|headers?|html|https?|java|javascript|json|kde|kernel|linux|metapackage|modules?|npm|object-oriented|"
    r"open source|parse[rs]?|parsing|perl|php|plug-?ins?|port \d+|programming|python3?|qt\d?|repositor(?:y|ies)|"
    r"runtime|sdk|source code|sql|syntax|tcp|threads?|toolkit|unix|urls?|variables?|widgets?|wrappers?|x11|xml|yaml|"
    r"android|angular|ansible|apache|clojure|django|emacs|erlang|fedora|firefox|fortran|github|gitlab|golang|"
    r"gradle|jenkins|jupyter|kafka|keras|kotlin|kubernetes|lua|macos|matlab|mongodb|mysql|nginx|numpy|postgres(?:ql)?|"
    r"pytorch|rails|redis|scala|tensorflow|terraform|tomcat|typescript|ubuntu|wayland)\b",
    re.IGNORECASE,
)
_MAYBE_TECHNICAL = re.compile(
    r"\b(?:algorithms?|browsers?|class(?:es)?|clients?|chrome|commits?|databases?|desktop|documentation|drivers?|editor|"
    r"elixir|errors?|excel|extensions?|files?|flask|formats?|functions?|implement\w+|install\w*|interfaces?|languages?|latex|"
    r"librar(?:y|ies)|manual|maven|memory|methods?|objects?|octave|packages?|pandas|patch(?:es)?|profiling|programs?|"
    r"protocols?|puppet|react|releases?|ruby|scripts?|servers?|shell|simulat\w+|software|stack|templat\w+|terminal|tests?|"
    r"tools?|upgrade[sd]?|utilit(?:y|ies)|versions?|viewer|vim|warnings?|web|windows)\b",
    re.IGNORECASE,
)
_NEVER = re.compile(r"amex|atm|eu|euros?|maestro|mastercard|paypal|swift|visa", re.IGNORECASE)
_FUNCTION_WORDS = frozenset(
    ("a", "al", "am", "an", "at", "au", "by", "da", "de", "di", "do", "e", "em", "en", "et", "im", "in", "is", "it",
     "la", "le", "na", "no", "of", "on", "the", "to", "y", "zu")
)  # fmt: skip
_IDENTIFIERS = re.compile(
    r"\w::\w|\b[a-z]{2,}[A-Z]|\b[A-Z]+[a-z]+[A-Z][a-z]+[A-Z]|\b(?:lib|node|php|python3?|ruby|golang)\w*-[a-z]|"
    r"^(?!(?:address|card|cc|e?mail|from|iban|name|note|patient|phone|re|subject|summari[sz]e|to|translate)\b)"
    r"[a-z0-9][a-z0-9.+-]+: |\w\(\)|\b[a-z]+_[a-z]|(?<![\w.])\d+\.\d+\.\d+\b|"
    r"\b0x[0-9a-f]{2}|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}\b|\b(?:SELECT|INSERT|UPDATE|DELETE|WHERE|LIMIT)\b"
)
_LINKS = re.compile(r"(?<!\S)\S*?(?:@|://)\S*")


class Found(msgspec.Struct, frozen=True):
    """One find of a model, in characters. Named as Presidio's results are."""

    entity_type: str
    start: int
    end: int
    score: float


def is_technical(text: str) -> bool:
    """Whether a text speaks of software, or is full of identifiers; those in links and e-mails don't count."""
    plain = _LINKS.sub("", text)
    if _TECHNICAL.search(plain) or _IDENTIFIERS.search(plain):
        return True
    return len({word.lower() for word in _MAYBE_TECHNICAL.findall(plain)}) > bool(_PEOPLE.search(plain))


def plausible(text: str, found: Sequence[Found]) -> list[Found]:
    """The finds that are believed."""
    names = [f for f in found if f.entity_type in NAMES]
    if names:
        technical = is_technical(text)
        in_context = not technical or bool(_PEOPLE.search(text)) or not is_english(text)
        names = [f for f in names if _is_name(text, f, technical=technical, in_context=in_context)]
    return names + [f for f in found if f.entity_type not in NAMES and _is_number(text, f, names)]


def _is_name(text: str, find: Found, *, technical: bool, in_context: bool) -> bool:
    """A name is made of letters, and is no part of an identifier (`libjson-perl`, `foo.bar`, a lower-case `key:`)."""
    span = text[find.start : find.end]
    before, rest = text[max(find.start - 1, 0) : find.start], text[find.end : find.end + 2]
    if not re.search(rf"(?!\d|_)[{W}]", span):
        return False  # of scripts that the models weren't trained on
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
    if span in _FUNCTION_WORDS or _NEVER.fullmatch(span):
        return False
    if not technical:
        return True
    if not re.search(r"[^\W\d_]{2}", _MAYBE_TECHNICAL.sub("", _TECHNICAL.sub("", span))) or re.search(
        r"[a-z][A-Z]|[A-Z]{2}", span
    ):
        return False
    if span.islower() and (find.entity_type == "STREET" or not (text.islower() or in_context)):
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
