"""Which request decodes next, inside a worker.

One pass of the model at a time, for one request. Requests don't share a pass: onnxruntime-genai can't let a request
join a running batch, a batch of its own kind can't reuse a shared prompt's cache, and for short answers that reuse
gains more than a batch does. A request that needs more than SLICE passes lets others have theirs, up to SLOTS by turns,
so that a long answer delays a short one by a slice and not by its whole length. Short ones run one after another in the
order of their arrival, and so find the cache that the one before has left.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

from exporters.models import Confidence
from gateway.engines.decode import Decoding
from gateway.engines.drafts import Drafts
from gateway.engines.errors import EngineError
from gateway.engines.protocol import Cancel, Event, Generate, Order, Refused, Started
from gateway.engines.runtime import Cache, Runtime

log = logging.getLogger("retort.engine")

SLOTS = 4
SLICE = 16
KEPT_CAPACITY = 2048  # a cache above this many tokens is not kept for the next request


class Schedule:
    """`send` is called with each event, in order. `confidence`: of the version; by default that of an artefact without
    one. `clock`: the machine's monotonic one, in seconds."""

    def __init__(
        self,
        runtime: Runtime,
        send: Callable[[Event], None],
        *,
        confidence: Confidence | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._confidence = confidence or Confidence()
        self._send = send
        self._clock = clock
        self._drafts = Drafts()
        self._waiting: deque[Generate] = deque()
        self._active: deque[Decoding] = deque()
        self._free: list[Cache] = []
        self._passes = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to decode."""
        return not self._waiting and not self._active

    def take(self, order: Order) -> None:
        """Note a request, or that one is no longer wanted."""
        if isinstance(order, Cancel):
            self._waiting = deque(r for r in self._waiting if r.id != order.id)
            for decoding in [d for d in self._active if d.id == order.id]:
                self._release(decoding)
        else:
            self._waiting.append(order)

    def turn(self) -> None:
        """One pass of one request, at most."""
        if self._passes >= SLICE:
            self._passes = 0
            if self._waiting and len(self._active) < SLOTS:
                self._start(self._waiting.popleft())
            self._active.rotate(-1)
        while self._waiting and not self._active:
            self._start(self._waiting.popleft())
        if not self._active:
            return
        decoding = self._active[0]
        self._passes += 1
        try:
            for event in decoding.step():
                self._send(event)
        except Exception:
            # The edge of the loop: one request's failure is not the others'. Its cache is in doubt, so it goes.
            log.exception("engine.decode_failed")
            decoding.give_cache()
            self._release(decoding)
            self._send(Refused(id=decoding.id, code="decode_failed", message="The runtime failed on this request."))
            return
        if decoding.finished:
            self._drafts.remember(decoding.answer)
            self._release(decoding)

    def _start(self, request: Generate) -> None:
        try:
            prompt = self._runtime.encode(request.messages)
            length = len(prompt)
            decoding = Decoding(
                request, prompt, runtime=self._runtime, draft=self._drafts.begin(), confidence=self._confidence
            )
            decoding.take_cache(self._free)
        except EngineError as error:
            self._send(Refused(id=request.id, code=error.code, message=str(error), param=error.param))
        except Exception:
            log.exception("engine.decode_failed")
            self._send(Refused(id=request.id, code="decode_failed", message="The runtime failed on this request."))
        else:
            self._active.append(decoding)
            self._send(Started(id=request.id, prompt_tokens=length, queue_seconds=self._clock() - request.at))
            for event in decoding.begin():
                self._send(event)

    def _release(self, decoding: Decoding) -> None:
        if decoding is self._active[0]:
            self._passes = 0
        self._active.remove(decoding)
        cache = decoding.give_cache()
        if cache is not None and cache.capacity <= KEPT_CAPACITY:
            self._free.append(cache)
