"""A student of closed answers: a text in, one value for each field out, and the answer in the teacher's form.

The folder holds `closed.json` (Card) and what scores the values: n-grams with linear weights, or an encoder's graph.
The answer is the likeliest value of each field; its log probability is the sum of theirs, each at its field's
temperature. NumPy, and for an encoder ONNX Runtime and tokenizers: only workers and the retrainer import this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from exporters.models.closed_form import Form
from exporters.models.errors import CorruptArtefact
from exporters.models.frame import Frame
from exporters.models.genai import Generated, Messages, Tick

CARD = "closed.json"
SCHEMA = 1

Floats = npt.NDArray[np.float32]


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`shared`: how many messages all training prompts begin with alike, and `frame`: what their messages stand in;
    neither is read. `temperatures`: one a
    field. `shares`: of an encoder, one a field: the weight of its word, beside the n-grams' (see `blend`)."""

    schema: int = SCHEMA
    kind: Literal["linear", "encoder"]
    form: Form
    shared: int
    frame: Frame = Frame()
    temperatures: tuple[float, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}; serve it with the version that exported it")
        if len(self.temperatures) != len(self.form.fields) or not all(0.0 < t < 1e3 for t in self.temperatures):
            raise ValueError("temperatures needs one number above 0 for each field")
        if len(self.shares) != (len(self.form.fields) if self.kind == "encoder" else 0):
            raise ValueError("shares needs one number for each field of an encoder, and none else")


class Scores(Protocol):
    """What scores the values."""

    def __call__(self, text: str) -> tuple[Floats, int]:
        """The logits of all fields' values, one field after the other, and how many tokens were read."""


class ClosedModel:
    """Answers prompts, each by itself: an answer doesn't depend on what is asked beside it."""

    def __init__(self, card: Card, scores: Scores) -> None:
        self.card = card
        self._scores = scores

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> "ClosedModel":
        """Of an artefact's folder. Raises CorruptArtefact."""
        card = read_card(folder)
        if card.kind == "linear":
            from exporters.models.closed_linear import LinearScores  # noqa: PLC0415 - one of two

            return cls(card, LinearScores.load(folder, card.form))
        from exporters.models.closed_encoder import BlendedScores  # noqa: PLC0415 - heavy: ONNX Runtime

        return cls(card, BlendedScores.load(folder, card.form, card.shares, threads=threads))

    def answer(self, messages: Messages) -> tuple[Generated, int]:
        """The answer, and how many tokens of the prompt were read."""
        logits, read = self._scores(text_of(messages, self.card.shared, self.card.frame))
        return decide(self.card, logits), read

    def length(self, answer: str) -> int:
        """An answer is one choice."""
        return 1

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """Answers in the prompts' order; `tick(done)` is called after each. An answer is one choice, so there is
        nothing to cut short or to guess."""
        answers = []
        for done, messages in enumerate(prompts, start=1):
            answers.append(self.answer(messages)[0])
            if tick:
                tick(done)
        return answers


def decide(card: Card, logits: Floats) -> Generated:
    """The likeliest answer. `logits`: of all fields' values."""
    chosen: list[int] = []
    total = 0.0
    at = 0
    for size, temperature in zip(card.form.sizes, card.temperatures, strict=True):
        scaled = logits[at : at + size].astype(np.float64) / temperature
        best = int(scaled.argmax())
        total -= float(np.log(np.exp(scaled - scaled[best]).sum()))
        chosen.append(best)
        at += size
    return Generated(text=card.form.write(chosen), finish_reason="stop", tokens=1, logprobs=(min(total, 0.0),))


def blend(sizes: Sequence[int], shares: Sequence[float], one: Floats, other: Floats) -> Floats:
    """share log P_one + (1 - share) log P_other, field by field: a value that either finds unlikely is unlikely. The
    logits of both, [..., values]."""
    found, at = [], 0
    for size, share in zip(sizes, shares, strict=True):
        part = slice(at, at + size)
        found.append(share * _log_softmax(one[..., part]) + (1.0 - share) * _log_softmax(other[..., part]))
        at += size
    return np.concatenate(found, axis=-1)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32)


def text_of(messages: Messages, shared: int, frame: Frame) -> str:
    """What is read of a prompt: the newest message first, so that a long conversation loses its beginning."""
    return "\n".join(frame.inner(m["content"]) for m in reversed(messages[min(shared, len(messages) - 1) :]))


def read_card(folder: Path) -> Card:
    """Raises CorruptArtefact."""
    path = folder / CARD
    try:
        return msgspec.json.decode(path.read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptArtefact(f"{path} can't be used: {error}; export the version again") from error


def write_card(folder: Path, card: Card) -> None:
    """Into an artefact's folder."""
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
