"""An exported encoder on ONNX Runtime: texts to tokens, and batches of tokens to vectors or scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from exporters.models.encoder_card import GRAPH, TOKENIZER, EncoderCard, read_card
from exporters.models.errors import CorruptArtefact
from exporters.models.processors import processors

Floats = npt.NDArray[np.float32]

# A text of more characters for each token that can be read is refused, or cut, before it becomes tokens: so one of
# megabytes holds nobody up. Words are 4 to 6 characters a token, long runs of one character up to 100.
CHARACTERS = 100


class Tokens(msgspec.Struct, frozen=True):
    """Of a text, or of a query with a document. `kinds`: to which of the two each belongs. `whole`: whether nothing
    was cut off."""

    ids: list[int]
    kinds: list[int]
    whole: bool = True


class QueryTooLong(ValueError):
    """The query leaves no room for a document."""


class EncoderSession:
    """A loaded artefact. Not for several threads at once. `threads`: of ONNX Runtime; by default as many as this
    process may use processors."""

    def __init__(self, folder: Path, card: EncoderCard, *, threads: int | None) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy
        from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or processors()
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it remembers every shape that ever came
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.card = card
        self._session = ort.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # a mark that a text spells is text
        self._marks = int(self._tokenizer.num_special_tokens_to_add(card.gives == "score"))

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> "EncoderSession":
        """Raises CorruptArtefact."""
        card = read_card(folder)
        try:
            made = cls(folder, card, threads=threads)
            found = made.run([made.text("ready?") if card.gives == "vector" else made.pair("ready?", "Yes.")])
        except Exception as error:  # the runtimes raise their own kinds, some of them plain Exception
            raise CorruptArtefact(f"{folder} holds no encoder that can be run: {error}") from error
        if found.shape != ((1, card.dimensions) if card.gives == "vector" else (1,)) or not np.isfinite(found).all():
            raise CorruptArtefact(f"{folder} gives {found.shape}, not what its card says, or values that aren't finite")
        return made

    def text(self, text: str) -> Tokens:
        """Of one text, its prefix and the marks around it; the end is cut off where it is too long."""
        return self._tokens(self.card.prefix + text, None)

    def pair(self, query: str, document: str) -> Tokens:
        """Of a query and a document; the document's end is cut off. Raises QueryTooLong."""
        asked = self._tokenizer.encode(query[: self._characters], add_special_tokens=False)
        room = self.card.most_tokens - self._marks - len(asked.ids)
        if room < 1 or len(query) > self._characters:
            raise QueryTooLong
        return self._tokens(query, document)

    def run(self, rows: Sequence[Tokens]) -> Floats:
        """One pass, filled up to the longest: vectors [n, dimensions], or scores [n]."""
        ids = np.full((len(rows), max(len(row.ids) for row in rows)), self.card.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        kinds = np.zeros_like(ids)
        for n, row in enumerate(rows):
            ids[n, : len(row.ids)] = row.ids
            mask[n, : len(row.ids)] = 1
            kinds[n, : len(row.ids)] = row.kinds
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        (found,) = self._session.run(None, {name: value for name, value in given.items() if name in self._inputs})
        return np.asarray(found, dtype=np.float32)

    @property
    def _characters(self) -> int:
        return CHARACTERS * self.card.most_tokens

    def _tokens(self, text: str, document: str | None) -> Tokens:
        long = text if document is None else document
        cut = long[: self._characters]
        encoded = self._tokenizer.encode(cut) if document is None else self._tokenizer.encode(text, cut)
        ids, kinds = encoded.ids, encoded.type_ids
        over = max(len(ids) - self.card.most_tokens, 0)
        if over:
            end = len(ids) - _closing(encoded.special_tokens_mask)
            ids, kinds = (part[: end - over] + part[end:] for part in (ids, kinds))
        return Tokens(ids, kinds, len(cut) == len(long) and not over)


def score(card: EncoderCard, logits: Floats) -> npt.NDArray[np.float64]:
    """What a cross-encoder's logits [n] mean."""
    found = logits.astype(np.float64)
    return 1.0 / (1.0 + np.exp(-np.maximum(found, -700.0))) if card.squash else found


def _closing(marks: Sequence[int]) -> int:
    """How many marks a sequence ends with."""
    return next((n for n, mark in enumerate(reversed(marks)) if not mark), len(marks))
