"""What one request came to, for the `engine.request` event."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.engines.answers import Usage
from gateway.engines.errors import EngineError
from gateway.engines.protocol import Done, Event, Piece, Scores, Started, Vectors
from router.events import Events


class Measured:
    """Of one request, from now on. `outcome`: ok, an error's code, or cancelled."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.outcome = "cancelled"
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens = 0
        self.queue_seconds: float | None = None
        self.ttft_seconds: float | None = None

    def note(self, event: Event) -> None:
        """What a worker's event tells."""
        if isinstance(event, Started):
            self.prompt_tokens, self.queue_seconds = event.prompt_tokens, event.queue_seconds
        elif isinstance(event, Vectors | Scores):
            self.prompt_tokens, self.queue_seconds = event.tokens, event.queue_seconds
        elif isinstance(event, Piece | Done) and self.ttft_seconds is None:
            self.ttft_seconds = time.monotonic() - self.began
        if isinstance(event, Done):
            self.completion_tokens, self.reasoning_tokens = event.completion_tokens, event.reasoning_tokens

    def usage(self) -> Usage:
        """Of a chat's answer."""
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, self.reasoning_tokens)


@contextmanager
def measuring(events: Events, version: str, *, operation: str) -> Iterator[Measured]:
    """Emit the event when the request is over. `operation`: chat | embeddings | rerank."""
    measured = Measured()
    try:
        yield measured
    except EngineError as error:
        measured.outcome = error.code
        raise
    finally:
        events.emit(
            "engine.request",
            version=version,
            operation=operation,
            outcome=measured.outcome,
            prompt_tokens=measured.prompt_tokens,
            completion_tokens=measured.completion_tokens,
            queue_seconds=measured.queue_seconds,
            ttft_seconds=measured.ttft_seconds,
            seconds=time.monotonic() - measured.began,
        )
