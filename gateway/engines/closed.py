"""Serving of students that choose among few answers. Only worker processes import this.

An answer is one pass of the model, so there is nothing to decode, cache or interleave: what waits is answered in the
order of its arrival, a batch at a turn, and what comes meanwhile (a cancellation, too) is seen between batches. The
answer is always the likeliest one: temperature, top_p and seed have nothing to draw from.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable

from exporters.models import Confidence
from exporters.models.closed import ClosedModel
from gateway.engines.errors import InvalidRequest
from gateway.engines.protocol import Assessed, Cancel, Done, Event, Generate, Order, Piece, Refused, Started
from gateway.engines.text import Stops
from router.scores.schema import keeps_to

log = logging.getLogger("retort.engine")

BATCH = 16


class ClosedSchedule:
    """See Turns. `clock`: the machine's monotonic one, in seconds."""

    def __init__(
        self,
        model: ClosedModel,
        send: Callable[[Event], None],
        *,
        confidence: Confidence,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._send, self._confidence, self._clock = model, send, confidence, clock
        self._waiting: deque[Generate] = deque()

    @property
    def idle(self) -> bool:
        """See Turns."""
        return not self._waiting

    def take(self, order: Order) -> None:
        """See Turns."""
        if isinstance(order, Cancel):
            self._waiting = deque(r for r in self._waiting if r.id != order.id)
        else:
            self._waiting.append(order)

    def turn(self) -> None:
        """Answer what waits, BATCH requests at the most."""
        for _ in range(min(BATCH, len(self._waiting))):
            request = self._waiting.popleft()
            try:
                events = self._answer(request)
            except InvalidRequest as error:
                events = [Refused(id=request.id, code=error.code, message=str(error), param=error.param)]
            except Exception:
                # The edge of the loop: one request's failure is not the others'.
                log.exception("engine.decode_failed")
                message = "The runtime failed on this request."
                events = [Refused(id=request.id, code="decode_failed", message=message)]
            for event in events:
                self._send(event)

    def _answer(self, request: Generate) -> list[Event]:
        if request.options.top_logprobs is not None:
            raise InvalidRequest(
                "logprobs is not supported by this model: it chooses whole answers, not tokens.", param="logprobs"
            )
        waited = self._clock() - request.at
        answer, read = self._model.answer(request.messages)
        if request.options.schema and not _fits(answer.text, request.options.schema):
            raise InvalidRequest(
                "response_format is not supported by this model: it chooses among whole answers, and the one that it "
                "chose is not of this form.",
                param="response_format",
            )
        sure = self._confidence.whole(
            answer.logprobs, finished=True, novelty=self._confidence.novelty(request.messages)
        )
        stops = Stops(request.options.stop)
        text = stops.feed(answer.text)
        text += "" if stops.matched else stops.end()
        events: list[Event] = [Started(id=request.id, prompt_tokens=read, queue_seconds=waited)]
        if request.options.assess:  # the beginning is the whole
            events.append(Assessed(id=request.id, confidence=sure))
        events.append(Piece(id=request.id, text=text))
        events.append(Done(id=request.id, finish_reason="stop", completion_tokens=answer.tokens, confidence=sure))
        return events


def _fits(text: str, schema: str) -> bool:
    try:
        return keeps_to(json.loads(text), json.loads(schema))
    except ValueError:
        return False
