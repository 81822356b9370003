"""Closed answers by a sentence encoder with heads: `model.onnx` (ids and mask in, the logits of all values out) and
`tokenizer.json`; with n-grams' linear weights beside it (see `blend`). One text a pass: older int8 graphs scale
activations over the whole batch, so that neighbours would change an answer."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from exporters.models.closed import blend
from exporters.models.closed_form import Form
from exporters.models.closed_linear import LinearScores
from exporters.models.errors import CorruptArtefact
from exporters.models.processors import processors

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
MOST_TOKENS = 256  # MiniLM was trained on no longer texts

Floats = npt.NDArray[np.float32]


class EncoderScores:
    """See Scores. Of the encoder alone."""

    def __init__(self, folder: Path, *, threads: int | None) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy
        from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or processors()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.no_padding()

    def __call__(self, text: str) -> tuple[Floats, int]:
        """See Scores."""
        ids = np.array([self._tokenizer.encode(text[: MOST_TOKENS * 32]).ids], dtype=np.int64)
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return np.asarray(logits[0], dtype=np.float32), ids.shape[1]

    @classmethod
    def load(cls, folder: Path, form: Form, *, threads: int | None = None) -> "EncoderScores":
        """Raises CorruptArtefact."""
        try:
            made = cls(folder, threads=threads)
            width = len(made("ready?")[0])
        except Exception as error:  # the runtimes raise their own kinds, some of them plain Exception
            raise CorruptArtefact(f"{folder} holds no encoder that can be run: {error}") from error
        if width != sum(form.sizes):
            raise CorruptArtefact(f"{folder / GRAPH} gives {width} logits, the form has {sum(form.sizes)} values")
        return made


class BlendedScores:
    """See Scores."""

    def __init__(self, encoder: EncoderScores, linear: LinearScores, form: Form, shares: tuple[float, ...]) -> None:
        self._encoder, self._linear, self._sizes, self._shares = encoder, linear, form.sizes, shares

    def __call__(self, text: str) -> tuple[Floats, int]:
        """See Scores."""
        logits, read = self._encoder(text)
        return blend(self._sizes, self._shares, logits, self._linear(text)[0]), read

    @classmethod
    def load(cls, folder: Path, form: Form, shares: tuple[float, ...], *, threads: int | None) -> "BlendedScores":
        """Raises CorruptArtefact."""
        encoder = EncoderScores.load(folder, form, threads=threads)
        return cls(encoder, LinearScores.load(folder, form), form, shares)
