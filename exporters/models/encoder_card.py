"""What an encoder's artefact says beside its graph: how texts become tokens, and what its output means."""

from pathlib import Path
from typing import Literal

import msgspec

from exporters.models.errors import CorruptArtefact

CARD, GRAPH, TOKENIZER = "encoder_card.json", "model.onnx", "tokenizer.json"


class EncoderCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gives`: a vector for a text, or a score for a query with a document. `most_tokens`: that the model reads of
    either, marks included. `pad`: the token that fills a row up. `dimensions`: of a vector; `shorter`: those to which
    it may be cut, having been trained for them (Matryoshka, Kusupati et al. 2022); `unit`: whether it is of unit
    length. `prefix`: put before each text. `squash`: whether a score goes through a sigmoid, into (0, 1)."""

    gives: Literal["vector", "score"]
    most_tokens: int
    pad: int
    dimensions: int = 0
    shorter: tuple[int, ...] = ()
    unit: bool = True
    prefix: str = ""
    squash: bool = False

    def __post_init__(self) -> None:
        if self.most_tokens < 4:
            raise ValueError("most_tokens must be at least 4")
        if self.gives == "vector" and self.dimensions < 1:
            raise ValueError("a vector needs dimensions")
        if not all(0 < one < self.dimensions for one in self.shorter):
            raise ValueError(f"shorter must hold numbers between 0 and {self.dimensions}")


def read_card(folder: Path) -> EncoderCard:
    """Raises CorruptArtefact."""
    path = folder / CARD
    try:
        return msgspec.json.decode(path.read_bytes(), type=EncoderCard)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptArtefact(f"{path} can't be used: {error}; export the version again") from error


def write_card(folder: Path, card: EncoderCard) -> None:
    """Into an artefact's folder."""
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
