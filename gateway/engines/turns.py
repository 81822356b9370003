"""The seam between a worker process and what answers in it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from exporters.models import CLOSED, GENAI, Confidence
from gateway.engines.errors import NotReady
from gateway.engines.protocol import Event, Loaded, Order

RUNTIMES = (GENAI, CLOSED)


class Turns(Protocol):
    """Requests that are answered turn by turn, so that orders are read in between."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""

    def take(self, order: Order) -> None:
        """Note a request, or that one is no longer wanted."""

    def turn(self) -> None:
        """A bounded piece of work."""


def load(runtime: str, folder: Path, *, threads: int, send: Callable[[Event], None]) -> tuple[Loaded, Turns]:
    """Load an artefact's folder by its runtime. Raises NotReady, ArtefactError, ImportError."""
    confidence = Confidence.load(folder)
    if runtime == CLOSED:
        from exporters.models.closed import ClosedModel  # noqa: PLC0415 - each runtime loads its own libraries
        from gateway.engines.closed import ClosedSchedule  # noqa: PLC0415 - likewise

        began = time.monotonic()
        model = ClosedModel.load(folder, threads=threads)
        return Loaded(seconds=time.monotonic() - began), ClosedSchedule(model, send, confidence=confidence)
    if runtime == GENAI:
        from gateway.engines.genai import GenAIRuntime  # noqa: PLC0415 - heavy, and its absence is a message too
        from gateway.engines.schedule import Schedule  # noqa: PLC0415 - with it

        genai = GenAIRuntime(folder, threads=threads)
        loaded = Loaded(seconds=genai.load_seconds, context_length=genai.context_length)
        return loaded, Schedule(genai, send, confidence=confidence)
    raise NotReady(f"{folder} is for the runtime {runtime!r}; this engine runs {', '.join(RUNTIMES)}")
