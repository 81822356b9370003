"""What one request came to, and how many there are: the events `engine.request` and `engine.inside`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.engines.answers import Usage
from gateway.engines.errors import EngineError
from gateway.engines.hosting import Hosted
from gateway.engines.protocol import Done, Event, Piece, Scores, Started, Vectors
from router.events import Events


class Measured:
    """Of one request, from now on. `operation`: chat | embeddings | rerank. `outcome`: ok, an error's code, or
    cancelled."""

    def __init__(self, hosted: Hosted, events: Events, *, operation: str) -> None:
        self._hosted, self._events, self._operation = hosted, events, operation
        self.began = time.monotonic()
        self.outcome = "cancelled"
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens = 0
        self.queue_seconds: float | None = None
        self.ttft_seconds: float | None = None
        self.batch: float | None = None
        self.gaps: list[float] = []
        self._last = 0.0
        self._decodes = False

    @contextmanager
    def counted(self, does: str) -> Iterator[None]:
        """See Hosted.must and Hosted.admit; then all that is known is told."""
        try:
            self._hosted.must(does)
            with self._hosted.admit():
                self._count()
                yield
        except EngineError as error:
            self.outcome = error.code
            raise
        except Exception as error:
            if not isinstance(error, ConnectionError):  # the client's: it has left
                self.outcome = EngineError.code
            raise
        finally:
            self._hosted.decoding -= self._decodes
            self._count()
            self._events.emit(
                "engine.request",
                version=self._hosted.version.id,
                operation=self._operation,
                outcome=self.outcome,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                queue_seconds=self.queue_seconds,
                ttft_seconds=self.ttft_seconds,
                gaps=self.gaps,
                batch=self.batch,
                seconds=time.monotonic() - self.began,
            )

    def note(self, event: Event) -> None:
        """What a worker's event tells."""
        now = time.monotonic()
        if isinstance(event, Started):
            self.prompt_tokens, self.queue_seconds = event.prompt_tokens, event.queue_seconds
            self._decodes = True
            self._hosted.decoding += 1
            self._count()
        elif isinstance(event, Vectors | Scores):
            self.prompt_tokens, self.queue_seconds, self.batch = event.tokens, event.queue_seconds, event.batch
        elif isinstance(event, Piece | Done) and self.ttft_seconds is None:
            self.ttft_seconds = now - self.began
        elif isinstance(event, Piece):
            self.gaps.append(now - self._last)
        if isinstance(event, Done):
            self.completion_tokens, self.reasoning_tokens = event.completion_tokens, event.reasoning_tokens
            self.batch = event.batch
        self._last = now

    def _count(self) -> None:
        inside, decoding = self._hosted.inside, self._hosted.decoding
        version = self._hosted.version.id
        self._events.emit("engine.inside", version=version, waiting=inside - decoding, decoding=decoding)

    def usage(self) -> Usage:
        """Of a chat's answer."""
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, self.reasoning_tokens)
