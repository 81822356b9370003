"""Closed answers by n-grams and linear weights: `ngrams.json`, and `linear.safetensors` with weights [n-grams, values]
as float16 and bias [values]."""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from exporters.models.closed_form import Form
from exporters.models.errors import CorruptArtefact
from exporters.models.ngrams import Ngrams, Reader
from exporters.models.tensors import read_tensors, write_tensors

NGRAMS, WEIGHTS = "ngrams.json", "linear.safetensors"

Floats = npt.NDArray[np.float32]


class LinearScores:
    """See Scores. `weights` [n-grams, values]; `bias` [values]."""

    def __init__(self, ngrams: Ngrams, weights: npt.NDArray[np.float16], bias: Floats) -> None:
        self._reader = Reader(ngrams)
        self._weights, self._bias = weights, bias

    def __call__(self, text: str) -> tuple[Floats, int]:
        """See Scores. Tokens are words."""
        columns, weights = self._reader.row(text)
        found = np.asarray(weights, dtype=np.float32) @ self._weights[columns].astype(np.float32)
        return np.asarray(self._bias + found, dtype=np.float32), len(text.split())

    @classmethod
    def load(cls, folder: Path, form: Form) -> "LinearScores":
        """Raises CorruptArtefact."""
        tensors = read_tensors(folder / WEIGHTS)
        try:
            ngrams = msgspec.json.decode((folder / NGRAMS).read_bytes(), type=Ngrams)
            weights, bias = tensors["weights"], tensors["bias"]
        except (OSError, KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptArtefact(f"{folder} holds no linear student: {error}; export the version again") from error
        if weights.shape != (len(ngrams), sum(form.sizes)) or bias.shape != (sum(form.sizes),):
            raise CorruptArtefact(f"{folder / WEIGHTS} doesn't fit {NGRAMS} and the form; export the version again")
        return cls(ngrams, weights.astype(np.float16), bias.astype(np.float32))


def write_linear(folder: Path, ngrams: Ngrams, weights: Floats, bias: Floats) -> None:
    """Into an artefact's folder."""
    (folder / NGRAMS).write_bytes(msgspec.json.encode(ngrams))
    write_tensors(folder / WEIGHTS, {"weights": weights.astype(np.float16), "bias": bias.astype(np.float32)})
