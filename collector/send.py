"""Sending frames to the collector: for servers without ever waiting, for commands with a wait for the answer."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from collector.adopt import Adopter
from collector.errors import CollectorUnavailable, SpoolError
from collector.frames import ACK, Header, pack
from collector.spool import Place, Spool
from router import Events

log = logging.getLogger("retort.collector")

LINGER = 0.01  # seconds in which frames are gathered into one write; a write for each costs several times as much
FIRST_BACKOFF = 0.05
LONGEST_BACKOFF = 1.0
MOST_BUFFERED = 1 << 20  # bytes that wait in a connection


class _Kept(msgspec.Struct):
    """A frame until it is acknowledged. `pieces`: None where it stands in the spool alone, at `place`. `done`: of one
    that its owner keeps on disk until then."""

    sequence: int
    size: int
    pieces: Sequence[bytes] | None
    place: Place | None
    done: asyncio.Future[None] | None = None


class FrameSender:
    """Keeps frames until the collector has acknowledged them, at most `max_bytes`; sends them again after a break.

    With a `spool` they stand on disk as well, so that a successor sends them should this process be killed; those that
    memory has no room for stand there alone.
    """

    def __init__(self, path: Path, *, events: Events, max_bytes: int = 64 << 20, spool: Spool | None = None) -> None:
        self._path = path
        self._events = events
        self._max_bytes = max_bytes
        self._spool = spool
        self._kept: deque[_Kept] = deque()  # oldest first
        self._unsent: deque[_Kept] = deque()  # those of them that this connection has not had
        self._bytes = 0
        self._sequence = 0
        self._begun = 0
        self._backoff = FIRST_BACKOFF
        self._transport: asyncio.Transport | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._adopter = None if spool is None else Adopter(spool, self._lend, events)
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Connect in the background, and again whenever the connection breaks; send what killed processes left."""
        self._connecting = asyncio.create_task(self._keep_connected())
        if self._adopter is not None:
            self._adopter.start()

    def send(self, header: Header, *bodies: bytes, begun: int | None = None) -> bool:
        """Take a frame. Never waits; False, and an event, where there is no room and the frame is dropped.

        `begun`: what `begin` said of the same exchange.
        """
        taken = self._take(header, *bodies)
        if not taken:
            self._events.emit("collector.frames_dropped", count=1)
        if begun is not None and self._spool is not None:
            self._spool.over(begun)
        return taken

    @property
    def spools(self) -> bool:
        """Whether frames survive this process."""
        return self._spool is not None

    @property
    def crowded(self) -> bool:
        """Whether half of the room for frames is taken: what can be spared should be, so that the rest finds room."""
        return 2 * self._bytes > self._max_bytes and (self._spool is None or self._spool.crowded)

    def begin(self, header: Header, *bodies: bytes) -> int | None:
        """Keep what is known of an exchange that is answered, but not over, for a successor. None where there is no
        room for it."""
        self._begun += 1
        kept = self._spooled(self._begun, pack(0, header, *bodies), begun=True)
        return None if kept is None else self._begun

    async def drain(self, timeout: float) -> int:
        """Wait until all is acknowledged, or nothing has been for so many seconds; returns how many frames are neither
        acknowledged nor on disk."""
        left = None
        while self._kept and left != self._kept[0].sequence:
            left = self._kept[0].sequence
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)
        return sum(frame.place is None and frame.done is None for frame in self._kept)

    async def close(self) -> None:
        """Stop; what is neither acknowledged by now nor on disk is lost, so drain first."""
        if self._adopter is not None:
            await self._adopter.close()
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._flush:
            self._flush.cancel()
        if self._transport:
            self._transport.close()
        if self._spool is not None:
            self._spool.close(empty=all(frame.place is None for frame in self._kept))

    def _take(self, header: Header, *bodies: bytes) -> bool:
        sequence = self._sequence + 1
        pieces: Sequence[bytes] | None = pack(sequence, header, *bodies)
        size = sum(map(len, pieces or ()))
        place = self._spooled(sequence, pieces or ())
        if self._bytes + size <= self._max_bytes:
            self._bytes += size
        elif place is None:
            return False
        else:
            pieces = None
        self._enqueue(_Kept(sequence, size, pieces, place))
        return True

    def _lend(self, header: Header, bodies: bytes) -> asyncio.Future[None] | None:
        """Take a frame that its owner keeps on disk; what it returns is done when the frame is acknowledged. None where
        it would take more than half of the room, beside others."""
        pieces = pack(self._sequence + 1, header, bodies)
        size = sum(map(len, pieces))
        if self._bytes and 2 * (self._bytes + size) > self._max_bytes:
            return None
        self._bytes += size
        done = asyncio.get_running_loop().create_future()
        self._enqueue(_Kept(self._sequence + 1, size, pieces, None, done))
        return done

    def _enqueue(self, frame: _Kept) -> None:
        self._sequence = frame.sequence
        self._kept.append(frame)
        self._unsent.append(frame)
        self._empty.clear()
        if self._flush is None and self._transport is not None:
            self._flush = asyncio.get_running_loop().call_later(LINGER, self._write)

    def _spooled(self, sequence: int, pieces: Sequence[bytes], *, begun: bool = False) -> Place | None:
        if self._spool is None:
            return None
        try:
            place = self._spool.keep(sequence, pieces, begun=begun)
        except OSError as error:
            log.error("collector.spool_failed", extra={"error": str(error)})
            place = None
        if place is None:
            self._events.emit("collector.spool_refused")
        return place

    def _write(self) -> None:
        """Hand the connection what it has not had, as long as it takes it."""
        self._flush = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while self._unsent and transport.get_write_buffer_size() < MOST_BUFFERED:
            batch: list[bytes] = []
            size = 0
            while self._unsent and size < MOST_BUFFERED:
                frame = self._unsent.popleft()
                size += frame.size
                batch += self._pieces(frame)
            transport.writelines(batch)

    def _pieces(self, frame: _Kept) -> Sequence[bytes]:
        if frame.pieces is not None or self._spool is None or frame.place is None:
            return frame.pieces or ()
        try:
            return [self._spool.read(frame.place)]
        except (OSError, SpoolError) as error:
            log.error("collector.spool_failed", extra={"error": str(error)})
            self._events.emit("collector.frames_dropped", count=1)
            return ()

    def _acknowledged(self, sequence: int) -> None:
        self._backoff = FIRST_BACKOFF  # this, and no mere connection, shows that the collector takes what it is sent
        while self._kept and self._kept[0].sequence <= sequence:
            frame = self._kept.popleft()
            self._bytes -= frame.size if frame.pieces is not None else 0
            if frame.done is not None and not frame.done.done():
                frame.done.set_result(None)
        if self._spool is not None:
            try:
                self._spool.acknowledged(sequence)
            except OSError as error:  # a successor sends them once more, which ids make harmless
                log.error("collector.spool_failed", extra={"error": str(error)})
        if not self._kept:
            self._empty.set()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lost = asyncio.Event()
            with suppress(OSError):
                transport, _ = await loop.create_unix_connection(
                    lambda lost=lost: _Acks(self._acknowledged, self._write, lost),  # type: ignore[misc]
                    str(self._path),
                )
                await self._use(transport, lost)
            await asyncio.sleep(self._backoff)
            self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)

    async def _use(self, transport: asyncio.Transport, lost: asyncio.Event) -> None:
        """Send what is kept, and what comes, until the connection is lost."""
        transport.set_write_buffer_limits(high=MOST_BUFFERED)
        self._transport, self._unsent = transport, deque(self._kept)
        self._write()
        try:
            await lost.wait()
        finally:
            self._transport = None
            transport.close()


class _Acks(asyncio.Protocol):
    """Reads acknowledgements: each says that this frame and all before it are durable."""

    def __init__(self, acknowledged: Callable[[int], None], writable: Callable[[], None], lost: asyncio.Event) -> None:
        self._acknowledged = acknowledged
        self._writable = writable
        self._lost = lost
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        whole = len(self._rest) // ACK.size * ACK.size
        if whole:
            (sequence,) = ACK.unpack_from(self._rest, whole - ACK.size)
            self._rest = self._rest[whole:]
            self._acknowledged(sequence)

    def resume_writing(self) -> None:
        self._writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()


def send_now(path: Path, headers: Sequence[Header], *, timeout: float = 10.0) -> None:
    """Send and wait until all is durable. Raises CollectorUnavailable."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(b"".join(piece for n, h in enumerate(headers, start=1) for piece in pack(n, h)))
            last = 0
            rest = b""
            while last < len(headers):
                data = connection.recv(4096)
                if not data:
                    raise CollectorUnavailable("the collector closed the connection before it acknowledged")
                rest += data
                while len(rest) >= ACK.size:
                    (last,) = ACK.unpack_from(rest)
                    rest = rest[ACK.size :]
    except OSError as error:
        raise CollectorUnavailable(f"no collector answers at {path} ({error}).") from error
