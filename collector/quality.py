"""Finds what pairs say of quality: at once where a pure score decides, later where a model or a judge is asked.

What can't be found is left out and counted (`collector.pair_lost`, by its reason); it never becomes a default.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from collector.embedding import Vectors, nearness
from collector.errors import CollectorError, JudgeFailed, Overloaded, without_text
from collector.judge import Judge
from collector.pairs import Pair, settled, student_is_bad, told
from collector.parse import Completion
from router import Events, Observation, QualityPolicy, needs_similarity

log = logging.getLogger("retort.collector")


class Encodes(Protocol):
    """Texts to unit vectors; collector.embedding.Embedder is the real one."""

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """(n, dimensions). Raises Overloaded, CollectorError."""


def waits(quality: QualityPolicy) -> bool:
    """Whether a route's pairs can only be settled with a model or a judge."""
    return quality.reference == "judge" or needs_similarity(quality.score)


class Quality:
    """Settles pairs. `judge`, `encoder`: None where no route needs one."""

    def __init__(self, events: Events, *, judge: Judge | None = None, encoder: Encodes | None = None) -> None:
        self._events = events
        self._judge = judge
        self._encoder = encoder

    def at_once(self, pairs: Sequence[Pair], quality: QualityPolicy) -> list[Observation]:
        """By pure scores."""
        return self._told([settled(pair, quality) for pair in pairs])

    async def later(
        self,
        pairs: Sequence[Pair],
        quality: QualityPolicy,
        *,
        request: Mapping[str, Any] | None = None,
        truth: Completion | None = None,
    ) -> list[Observation]:
        """With whatever it takes. `request`: the client's body, for a judge. `truth`: the right answer, once known.

        Never raises: what can't be settled is counted.
        """
        found: list[Observation | None] = []
        for pair in pairs:
            try:
                found.append(await self._settle(pair, quality, request, truth))
            except JudgeFailed as error:
                self._lost(pair, f"judge_{error.reason}")
            except Overloaded:
                self._lost(pair, "overload")
            except Exception as error:
                # The edge of one pair: the others go on.
                log.error("collector.pair_failed", extra=without_text(error))
                self._lost(pair, "encoder" if isinstance(error, CollectorError) else "error")
        return self._told(found)

    async def _settle(
        self, pair: Pair, quality: QualityPolicy, request: Mapping[str, Any] | None, truth: Completion | None
    ) -> Observation | None:
        if quality.reference == "judge" and quality.judge is not None:
            if student_is_bad(pair, quality) is not None or pair.student is None:
                return told(pair, 0.0, 1.0)
            if self._judge is None or request is None:
                raise JudgeFailed("not_asked")
            value = await self._judge.value(
                pair.observation.route,
                quality.judge,
                request=request,
                student=pair.student.message,
                teacher=pair.teacher.message,
            )
            return told(pair, value, 1.0 - value)
        return await self._compared(pair, quality, truth)

    async def _compared(self, pair: Pair, quality: QualityPolicy, truth: Completion | None) -> Observation | None:
        """Score once to learn which texts are to be compared, encode them together, and score again."""
        wanted: dict[str, int] = {}

        def note(a: str, b: str) -> float:
            for text in (a, b):
                wanted.setdefault(text, len(wanted))
            return 0.0

        first = settled(pair, quality, truth=truth, similarity=note)
        if not wanted:
            return first
        if self._encoder is None:
            raise CollectorError("no encoder was loaded")
        vectors = await self._encoder.vectors(list(wanted))
        return settled(
            pair, quality, truth=truth, similarity=lambda a, b: nearness(vectors[wanted[a]], vectors[wanted[b]])
        )

    def _told(self, found: Sequence[Observation | None]) -> list[Observation]:
        kept = [seen for seen in found if seen is not None]
        for seen in kept:
            self._events.emit("collector.pair", route=seen.route, version=seen.version, score=seen.value)
        return kept

    def _lost(self, pair: Pair, reason: str) -> None:
        self._events.emit("collector.pair_lost", route=pair.observation.route, reason=reason)
