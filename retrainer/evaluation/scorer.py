"""The score that offline evaluation uses: the same entry, by the same policy, as live shadow."""

from functools import partial
from pathlib import Path

from collector.embedding import Encoder, Similarities, encoder_folder
from exporters.models.encoder_onnx import ensure_encoder
from retrainer.evaluation.evaluate import Scorer
from router.scores import Spec, needs_similarity, score


def scorer(spec: Spec, state: str | Path) -> Scorer:
    """Bind a route's score. Where it compares meanings, the encoder of the state folder is loaded, and made first where
    there is none. Raises ArtefactError, CollectorError."""
    if not needs_similarity(spec):
        return partial(score, spec)
    return partial(score, spec, similarity=similarity(state))


def similarity(state: str | Path) -> Similarities:
    """How near two texts are in meaning, by the state folder's encoder. Raises as `scorer`."""
    folder = encoder_folder(state)
    ensure_encoder(folder)
    return Similarities(Encoder(folder).encode)
