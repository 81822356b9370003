"""Sending frames to the collector: for servers without ever waiting, for commands with a wait for the answer."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from collector.errors import CollectorUnavailable
from collector.frames import ACK, Header, pack
from router import Events

log = logging.getLogger("retort.collector")

LINGER = 0.01  # seconds in which frames are gathered into one write; a write for each costs several times as much
FIRST_BACKOFF = 0.05
LONGEST_BACKOFF = 1.0


class FrameSender:
    """Keeps frames until the collector has acknowledged them, at most `max_bytes`; sends them again after a break."""

    def __init__(self, path: Path, *, events: Events, max_bytes: int = 64 << 20) -> None:
        self._path = path
        self._events = events
        self._max_bytes = max_bytes
        self._kept: deque[tuple[int, int, list[bytes]]] = deque()  # sequence, size, pieces; oldest first
        self._bytes = 0
        self._sequence = 0
        self._sent = 0
        self._backoff = FIRST_BACKOFF
        self._transport: asyncio.Transport | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Connect in the background, and again whenever the connection breaks."""
        self._keeper = asyncio.create_task(self._keep_connected())

    def send(self, header: Header, *bodies: bytes) -> bool:
        """Take a frame. Never waits; False, and an event, where the buffer is full and the frame is dropped."""
        sequence = self._sequence + 1
        pieces = pack(sequence, header, *bodies)
        size = sum(map(len, pieces))
        if self._bytes + size > self._max_bytes:
            self._events.emit("collector.frames_dropped", count=1)
            return False
        self._sequence = sequence
        self._kept.append((sequence, size, pieces))
        self._bytes += size
        self._empty.clear()
        if self._flush is None and self._transport is not None:
            self._flush = asyncio.get_running_loop().call_later(LINGER, self._write)
        return True

    async def drain(self, timeout: float) -> int:
        """Wait until all is acknowledged, or nothing has been for so many seconds; returns how many frames are not."""
        left = None
        while self._kept and left != self._kept[0][0]:
            left = self._kept[0][0]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)
        return len(self._kept)

    async def close(self) -> None:
        """Stop; what is not acknowledged by now is lost, so drain first."""
        if self._keeper:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self._flush:
            self._flush.cancel()
        if self._transport:
            self._transport.close()

    def _write(self) -> None:
        self._flush = None
        if self._transport is None or self._transport.is_closing():
            return
        batch = [piece for sequence, _, pieces in self._kept if sequence > self._sent for piece in pieces]
        if batch:
            self._sent = self._sequence
            self._transport.writelines(batch)

    def _acknowledged(self, sequence: int) -> None:
        self._backoff = FIRST_BACKOFF  # this, and no mere connection, shows that the collector takes what it is sent
        while self._kept and self._kept[0][0] <= sequence:
            self._bytes -= self._kept.popleft()[1]
        if not self._kept:
            self._empty.set()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lost = asyncio.Event()
            with suppress(OSError):
                transport, _ = await loop.create_unix_connection(
                    lambda lost=lost: _Acks(self._acknowledged, lost),  # type: ignore[misc]
                    str(self._path),
                )
                await self._use(transport, lost)
            await asyncio.sleep(self._backoff)
            self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)

    async def _use(self, transport: asyncio.Transport, lost: asyncio.Event) -> None:
        """Send what is kept, and what comes, until the connection is lost."""
        self._transport, self._sent = transport, 0
        self._write()
        try:
            await lost.wait()
        finally:
            self._transport = None
            transport.close()


class _Acks(asyncio.Protocol):
    """Reads acknowledgements: each says that this frame and all before it are durable."""

    def __init__(self, acknowledged: Callable[[int], None], lost: asyncio.Event) -> None:
        self._acknowledged = acknowledged
        self._lost = lost
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        whole = len(self._rest) // ACK.size * ACK.size
        if whole:
            (sequence,) = ACK.unpack_from(self._rest, whole - ACK.size)
            self._rest = self._rest[whole:]
            self._acknowledged(sequence)

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
