"""The seam between a worker process and what answers in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from exporters.models import CLOSED, ENCODER, GENAI, SEQ2SEQ, Confidence
from gateway.engines.errors import Unfit
from gateway.engines.protocol import Event, Loaded

RUNTIMES = (GENAI, CLOSED, ENCODER, SEQ2SEQ)

Asked = TypeVar("Asked", contravariant=True)


class Turns(Protocol[Asked]):
    """Requests that are answered turn by turn, so that orders are read in between. Each takes the orders of what it
    does (see Loaded)."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""

    def take(self, order: Asked) -> None:
        """Note a request, or that one is no longer wanted."""

    def turn(self) -> None:
        """A bounded piece of work."""


def load(
    runtime: str, folder: Path, *, threads: int, cache_gb: float, send: Callable[[Event], None]
) -> tuple[Loaded, Turns[Any]]:
    """Load an artefact's folder by its runtime; `cache_gb`: see Rows. Raises NotReady, Unfit, ArtefactError,
    ImportError."""
    if runtime == ENCODER:
        from exporters.models.encoder_session import EncoderSession  # noqa: PLC0415 - each runtime loads its own
        from gateway.engines.encode import EncoderSchedule, loaded_from  # noqa: PLC0415 - likewise

        session = EncoderSession.load(folder, threads=threads)
        return loaded_from(session.card), EncoderSchedule(session, send)
    confidence = Confidence.load(folder)
    if runtime == CLOSED:
        from exporters.models.closed import ClosedModel  # noqa: PLC0415 - each runtime loads its own libraries
        from gateway.engines.closed import ClosedSchedule  # noqa: PLC0415 - likewise

        model = ClosedModel.load(folder, threads=threads)
        return Loaded(), ClosedSchedule(model, send, confidence=confidence)
    if runtime == GENAI:
        from gateway.engines.genai import GenAIRuntime  # noqa: PLC0415 - heavy, and its absence is a message too
        from gateway.engines.schedule import Schedule  # noqa: PLC0415 - with it

        genai = GenAIRuntime(folder, threads=threads, cache_gb=cache_gb)
        return Loaded(), Schedule(genai, send, confidence=confidence)
    if runtime == SEQ2SEQ:
        from gateway.engines.schedule import Schedule  # noqa: PLC0415 - likewise
        from gateway.engines.seq2seq import Seq2SeqRuntime, Trimmed  # noqa: PLC0415 - likewise

        seq2seq = Seq2SeqRuntime(folder, threads=threads)
        return Loaded(), Schedule(seq2seq, Trimmed(send), confidence=confidence)
    raise Unfit(f"{folder} is for the runtime {runtime!r}; this engine runs {', '.join(RUNTIMES)}")
