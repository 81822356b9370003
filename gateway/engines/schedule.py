"""Which requests the model works for next, inside a worker.

Requests that decode share every pass, a token each; they join as soon as their prompt is read and leave when their
answer ends. A prompt is read in pieces between those passes, so that a long one delays the others' next token by a
piece, and not by its whole length. Of several prompts the oldest and the shortest have turns: a short one need not wait
for a long one, nor a long one for ever.

Where the memory for keys and values runs out, the youngest request gives its own back and waits; once there is room, it
is read again up to where it was, and goes on. The oldest always goes on: what is admitted is answered.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

from exporters.models import Confidence
from exporters.models.rows import pieces
from gateway.engines.decode import Decoding
from gateway.engines.errors import DecodeFailed, EngineError
from gateway.engines.protocol import Cancel, Event, Generate, Order, Refused, Started
from gateway.engines.runtime import Runtime
from gateway.engines.sampling import Row

log = logging.getLogger("retort.engine")

PIECE = 256  # tokens of a prompt in one pass: between passes a request can be cancelled
BESIDE = 64  # the same while others decode
SPARE = 64  # tokens that a request should find room for, beside what it has read: it would soon give way again


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
        self._rows = runtime.rows
        self._confidence = confidence or Confidence()
        self._send = send
        self._clock = clock
        self._waiting: deque[Generate] = deque()
        self._ready: deque[Decoding] = deque()  # these come before them
        self._line: list[Decoding] = []  # by row: first those that decode, then those whose prompts are being read
        self._decoding = 0  # how many decode
        self._oldest = False  # whose prompt has the next turn

    @property
    def idle(self) -> bool:
        """Whether there is nothing to decode."""
        return not self._waiting and not self._ready and not self._line

    def take(self, order: Order) -> None:
        """Note a request, or that one is no longer wanted."""
        if isinstance(order, Cancel):
            self._waiting = deque(r for r in self._waiting if r.id != order.id)
            self._ready = deque(r for r in self._ready if r.id != order.id)
            for row in [row for row, decoding in enumerate(self._line) if decoding.id == order.id]:
                self._leave(row)
        else:
            self._waiting.append(order)

    def turn(self) -> None:
        """One pass over a piece of a prompt, and one for all that decode, at most."""
        self._admit()
        reads = BESIDE if self._decoding else PIECE
        while not self._rows.room(reads + self._decoding + 1) and len(self._line) > 1:  # one more may go along
            self._pause(max(range(len(self._line)), key=lambda row: self._line[row].id))
        if self._decoding < len(self._line):
            self._read()
        if self._decoding:
            self._step()

    def _admit(self) -> None:
        """As many as there are rows, and room, for; alone any request fits."""
        while len(self._line) < self._rows.count:
            while not self._ready:
                if not self._waiting:
                    return
                self._encode(self._waiting.popleft())
            line = self._ready[0].line
            if not self._rows.room(len(line) + SPARE) and self._line:
                return
            decoding = self._ready.popleft()
            decoding.unread = line[self._rows.share(len(self._line), line) :]
            self._line.append(decoding)
            if not decoding.begun:
                self._begin(decoding)

    def _encode(self, request: Generate) -> None:
        try:
            prompt = self._runtime.encode(request.messages)
            self._ready.append(Decoding(request, prompt, runtime=self._runtime, confidence=self._confidence))
        except EngineError as error:
            self._send(Refused(id=request.id, code=error.code, message=str(error), param=error.param))
        except Exception:
            self._send(_failed(request.id))

    def _begin(self, decoding: Decoding) -> None:
        decoding.begun = True
        waited = self._clock() - decoding.at
        self._send(Started(id=decoding.id, prompt_tokens=len(decoding.prompt), queue_seconds=waited))
        for event in decoding.begin():
            self._send(event)

    def _pause(self, row: int) -> None:
        """Its memory is for the others, until there is room."""
        decoding = self._line[row]
        self._leave(row)
        self._ready.appendleft(decoding)

    def _read(self) -> None:
        """A piece of one prompt; where that was its last, its request decodes from now on."""
        self._oldest = not self._oldest
        rows = range(self._decoding, len(self._line))
        row = min(rows, key=lambda row: (0 if self._oldest else len(self._line[row].unread), self._line[row].id))
        decoding = self._line[row]
        piece = next(pieces(decoding.unread, BESIDE if self._decoding else PIECE))
        try:
            logits = self._rows.read(row, piece)
        except Exception:  # the runtimes raise their own kinds
            self._send(_failed(decoding.id))
            self._leave(row)
            return
        decoding.unread = decoding.unread[len(piece) :]
        if not decoding.unread:
            self._swap(row, self._decoding)
            self._decoding += 1
            self._take(self._decoding - 1, logits, rows=1)

    def _step(self) -> None:
        """The next token of all that decode."""
        now = self._line[: self._decoding]
        try:
            found = self._rows.step([decoding.last for decoding in now])
        except Exception:  # likewise
            for decoding in now:
                self._send(_failed(decoding.id))
            for row in reversed(range(len(now))):
                self._leave(row)
            return
        for row in reversed(range(len(now))):  # who leaves changes places with one that has had its turn
            self._take(row, found[row], rows=len(now))

    def _take(self, row: int, logits: Row, *, rows: int) -> None:
        decoding = self._line[row]
        try:
            for event in decoding.take(logits, rows=rows):
                self._send(event)
        except DecodeFailed as error:
            self._send(Refused(id=decoding.id, code=error.code, message=str(error)))
            self._leave(row)
        except Exception:  # the edge of the loop
            self._send(_failed(decoding.id))
            self._leave(row)
        else:
            if decoding.finished:
                self._leave(row)

    def _leave(self, row: int) -> None:
        if row < self._decoding:
            self._decoding -= 1
            self._swap(row, self._decoding)
            row = self._decoding
        last = len(self._line) - 1
        self._swap(row, last)
        self._line.pop()
        self._rows.clear(last)

    def _swap(self, one: int, other: int) -> None:
        self._rows.swap(one, other)
        self._line[one], self._line[other] = self._line[other], self._line[one]


def _failed(number: int) -> Refused:
    """What goes wrong with one request is not the others'."""
    log.exception("engine.decode_failed")
    return Refused(id=number, code="decode_failed", message="The runtime failed on this request.")
