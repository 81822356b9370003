"""One upstream call, from its beginning to its end, and all that is known of it afterwards."""

import asyncio
import time
from collections.abc import Awaitable, Mapping

import msgspec

from collector import Call
from gateway.errors import BadStatus, Cut, Deferred, EmptyAnswer, ErrorInStream, UpstreamError, UpstreamTimeout
from gateway.routes import Callee
from gateway.sse import CONFIDENCE_HEADER, ConfidenceFilter, Ending, Opening, complete, confidence, opening
from gateway.unmask import Originals
from gateway.unmask_stream import UnmaskedStream
from gateway.upstream import Patience, Reply, Upstream
from router import Arm

# A body above this is not kept: the exchange is reported without its texts.
KEEP_BYTES = 8 << 20
# A stream that has sent so much without a real chunk is passed on as it is.
HOLD_BYTES = 256 << 10
LEAST_SECONDS = 0.001  # that a call gets, however late it is


class Outgoing(msgspec.Struct, frozen=True):
    """What is sent to a callee. `originals`: what is put back in its answer, where the body was masked for it, which
    took `spent` seconds."""

    headers: Mapping[str, str]
    body: bytes
    stream: bool
    originals: Originals | None = None
    spent: float = 0.0


class Attempt:
    """One call. Use: `begin`, and then for a stream `piece` until it is empty. `end` in any case.

    `threshold`: the confidence that a student must say for its answer to be used; None asks for none. `audited`: a
    stream that is deferred stays open, to be read to its end besides (`read_on`) and compared. `along`: see Call.
    """

    def __init__(self, callee: Callee, *, threshold: float | None = None, audited: bool = False) -> None:
        self.callee = callee
        self.threshold = threshold
        self.audited = audited
        self.deferred = False
        self.along = False
        self.status: int | None = None
        self.error: str | None = None
        self.ttft_ms: float | None = None
        self.total_ms: float | None = None
        self.confidence: float | None = None
        self.headers: Mapping[str, str] = {}
        self.streams = False
        self.content = b""
        self.too_large = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._reply: Reply | None = None
        self._partial = b""
        self._over = False
        self._ending = Ending()
        self._filter = ConfidenceFilter() if callee.arm is Arm.STUDENT else None
        self._originals: Originals | None = None
        self._unmasked: UnmaskedStream | None = None
        self.began = time.perf_counter()

    async def begin(self, upstream: Upstream, preparing: Awaitable[Outgoing], *, seconds: float) -> None:
        """Call, and wait until there is something for the client: a plain answer is then whole in `content`, of a
        stream `content` holds the events up to the first real chunk.

        Raises UpstreamError for what another upstream may be asked instead; of a teacher's answer with an error
        status the content is kept all the same. Raises Deferred for an answer under the threshold, which is no
        failure: a plain one is whole and kept, a stream is closed before its first chunk, unless it is audited.
        """
        try:
            outgoing = await preparing
            self._originals = outgoing.originals
            seconds = max(seconds - outgoing.spent, LEAST_SECONDS)
            if outgoing.stream:
                async with asyncio.timeout(seconds):
                    await self._ask(upstream, outgoing, Patience(idle=self.callee.timeout))
            else:
                await self._ask(upstream, outgoing, Patience(whole=seconds))
        except TimeoutError as error:
            self.end(UpstreamTimeout.constant)
            raise UpstreamTimeout from error
        except UpstreamError as error:
            self.end(error.constant)
            raise
        except asyncio.CancelledError:
            self.end("cancelled")
            raise

    async def _ask(self, upstream: Upstream, outgoing: Outgoing, patience: Patience) -> None:
        reply = await upstream.post(self.callee.target, outgoing.headers, outgoing.body, patience=patience)
        self._reply = reply
        self.status = reply.status
        self.headers = reply.headers
        if self._filter is not None:
            self.confidence = confidence(reply.headers.get(CONFIDENCE_HEADER))
        if reply.status == 200 and outgoing.stream and _is_stream(reply):
            self.streams = True
            self._unmasked = UnmaskedStream(self._originals) if self._originals else None
            self._hold_to_threshold()
            await self._open(reply)
        else:
            await self._whole(reply)

    async def piece(self) -> bytes:
        """A stream's next complete events; b"" when it is over. Raises UpstreamError when it broke off."""
        try:
            while not self._over and self._reply is not None:
                piece = await self._reply.chunk()
                if piece:
                    piece = self._take(piece)
                else:
                    piece, self._partial = self._rest(), b""
                    self._check_ending()
                if piece:
                    return piece
        except UpstreamError as error:
            piece, self._partial = self._rest(), b""
            if self._ending.done:  # it broke after its end
                self.end(None)
                return piece
            self.end(error.constant)
            raise
        except asyncio.CancelledError:
            self.end("cancelled")
            raise
        return b""

    @property
    def open(self) -> bool:
        """Whether there may be more to read."""
        return self._reply is not None

    @property
    def complete(self) -> bool:
        """Whether a stream's end, or what tells it, has come."""
        return self._ending.whole

    async def read_on(self, seconds: float) -> None:
        """Read a deferred stream to its end. One that does not come to it has nothing to compare, and is no failure:
        no user waited for it."""
        try:
            async with asyncio.timeout(seconds):
                while await self.piece():
                    pass
        except (TimeoutError, UpstreamError):
            self.drop()

    def drop(self) -> None:
        """Let go of a deferred stream and of what came of it."""
        self.end(None)
        self.error = None
        self._kept.clear()

    def end(self, error: str | None) -> None:
        """The call is over: note how, once, and let go of the connection."""
        if self.total_ms is None:
            self.total_ms = (time.perf_counter() - self.began) * 1000.0
            self.error = error
            if self.confidence is None and self._filter is not None:
                self.confidence = self._filter.confidence  # the header's comes first: it is the one that decides
        self._over = True
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    @property
    def kept(self) -> bytes:
        """The answer's bytes for the collector, as far as they came; b"" where they were too many."""
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)

    def call(self, body_bytes: int = 0) -> Call:
        """What the collector is told."""
        return Call(
            arm=self.callee.arm,
            version=self.callee.version,
            upstream=self.callee.upstream,
            status=self.status,
            error=self.error,
            ttft_ms=self.ttft_ms,
            total_ms=(time.perf_counter() - self.began) * 1000.0 if self.total_ms is None else self.total_ms,
            confidence=self.confidence,
            body_bytes=body_bytes,
            deferred=self.deferred,
            along=self.along,
        )

    async def _whole(self, reply: Reply) -> None:
        if falls_back(self.callee.arm, reply.status):
            if self.callee.arm is Arm.TEACHER and reply.status < 500:
                self.content = self._back(await reply.read())
            raise BadStatus(reply.status)
        self.content = self._back(await reply.read())
        if not self.content:
            raise EmptyAnswer
        self._keep(self.content)
        self.end(None if reply.status < 400 else f"http_{reply.status}")
        self._hold_to_threshold()

    def _back(self, body: bytes) -> bytes:
        """A whole body, with what was masked."""
        return self._originals.body(body) if self._originals else body

    def _hold_to_threshold(self) -> None:
        """Raises Deferred, and lets go of the connection, where the confidence is too low, or missing."""
        if self.threshold is not None and (self.confidence is None or self.confidence < self.threshold):
            self.deferred = True
            if not (self.streams and self.audited):
                self.end(None)
            raise Deferred

    async def _open(self, reply: Reply) -> None:
        events = b""
        while True:
            piece = await reply.chunk()
            if not piece:
                raise EmptyAnswer
            events += self._take(piece)
            found = opening(events) if len(events) + len(self._partial) < HOLD_BYTES else Opening.REAL
            if found is Opening.ERROR:
                raise ErrorInStream
            if found is Opening.DONE:
                raise EmptyAnswer
            if found is Opening.REAL:
                self.ttft_ms = (time.perf_counter() - self.began) * 1000.0
                self.content = events
                return

    def _take(self, piece: bytes) -> bytes:
        """Note what came; of it, the complete events. An event that breaks off never reaches the client."""
        if self._filter is not None:
            piece = self._filter.feed(piece)
        if self._unmasked is None:
            self._note(piece)
        data = self._partial + piece if self._partial else piece
        end = complete(data)
        if end == 0 and len(data) > HOLD_BYTES:
            end = len(data)
        self._partial = data[end:]
        events = data[:end]
        return events if self._unmasked is None else self._note(self._unmasked.feed(events))

    def _rest(self) -> bytes:
        """What is left at a stream's end: the last event, where nothing ended it, and what was held back."""
        if self._unmasked is None:
            return self._partial
        return self._note(self._unmasked.end(self._partial))

    def _note(self, piece: bytes) -> bytes:
        self._ending.feed(piece)
        self._keep(piece)
        return piece

    def _keep(self, piece: bytes) -> None:
        self._kept_bytes += len(piece)
        if self._kept_bytes <= KEEP_BYTES:
            self._kept.append(piece)
        else:
            self._kept.clear()
            self.too_large = True

    def _check_ending(self) -> None:
        if self._ending.told:  # and so was the client
            self.end(ErrorInStream.constant)
        elif self._ending.whole:
            self.end(None)
        else:
            raise Cut


def falls_back(arm: Arm, status: int) -> bool:
    """Whether an answer with this status is none: any but success from a student; from a teacher what another
    teacher, or a later time, may mend. A teacher's other 4xx is about the request, and the client's to see."""
    if status < 300:
        return False
    return arm is Arm.STUDENT or status < 400 or status >= 500 or status in (408, 429)


def _is_stream(reply: Reply) -> bool:
    return "text/event-stream" in reply.headers.get("content-type", "")
