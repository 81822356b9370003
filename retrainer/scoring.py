"""The score that offline evaluation uses: the same entry, by the same policy, as live shadow."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from collector.embedding import Encoder, Similarities, encoder_folder
from exporters.models.encoder_onnx import ensure_encoder
from router.scores import Asked, Spec, needs_similarity, score


class Scored(Protocol):
    """What `router.score` returns."""

    @property
    def value(self) -> float:
        """0 to 1."""

    @property
    def reason(self) -> str:
        """A short constant."""


class Scorer(Protocol):
    """`router.score`, with the route's score bound: the teacher's answer is the reference."""

    def __call__(
        self,
        *,
        answer: Mapping[str, Any] | None,
        reference: Mapping[str, Any] | None,
        finish_reason: str | None,
        asked: Asked,
    ) -> Scored:
        """Agreement of one answer with its reference. Raises ValueError where that is nothing to compare with."""


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
