"""The collector's server: frames in, durable records out, an acknowledgement for each.

    read (bounded) -> parse, score, observe -> scrub in the pool -> append in order of arrival -> acknowledge

All frames share one queue, so that one route's evidence has one order; what waits in it is bounded in bytes, and
beyond that the sockets are not read. A frame that is not acknowledged stays with its sender.
"""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import msgspec

from collector.assemble import Assembler
from collector.errors import CollectorError, LogError, LogFull
from collector.frames import ACK, MAX_BODY, MAX_HEADER, PREFIX, Envelope, socket_path, unpack
from collector.log import EventLog, Record, Stream
from collector.open_log import open_log
from collector.scrub_pool import ScrubPool
from router import Config, Events

log = logging.getLogger("retort.collector")

MAX_WAITING = 256 << 20
BATCH = 500
LONGEST_RETRY = 5.0
QUIET_SECONDS = 0.3
GIVE_UP_SECONDS = 20.0


async def run(config: Config, *, events: Events, stop: asyncio.Event) -> None:
    """Serve until stopped; returns when all that was received is in the log. Raises CollectorError, LogError."""
    path = socket_path(config.state)
    claim(path)
    evidence_log = open_log(config.log)
    keep = {name: policy.capture.keep for name, policy in config.routes.items()}
    pool = ScrubPool(config.state, keep=keep, workers=config.scrub_workers, events=events)
    await pool.start()
    receiver = Receiver(Assembler(config, pool, events), evidence_log, events)
    try:
        await receiver.serve(path, stop)
    finally:
        await pool.close()
        evidence_log.close()


def claim(path: Path) -> None:
    """Make the socket's place free. Raises CollectorError where a collector already answers there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except OSError:
            path.unlink(missing_ok=True)  # left behind by a process that was killed
            return
    raise CollectorError(f"a collector already listens at {path}; stop it, or use another state folder")


class _Waiting(msgspec.Struct, frozen=True):
    """A frame on its way into the log."""

    writer: asyncio.StreamWriter
    sequence: int
    size: int
    records: "asyncio.Task[list[tuple[Stream, Record]]]"


class Receiver:
    """Reads frames from any number of senders and appends what an Assembler makes of them."""

    def __init__(
        self, assembler: Assembler, target: EventLog, events: Events, *, max_waiting: int = MAX_WAITING
    ) -> None:
        self._assembler = assembler
        self._log = target
        self._events = events
        self._max_waiting = max_waiting
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Condition()
        self._received = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def serve(self, path: Path, stop: asyncio.Event) -> None:
        """Listen at `path` until stopped, then finish what was received."""
        server = await asyncio.start_unix_server(self._connected, str(path))
        path.chmod(0o600)
        appender = asyncio.create_task(self._append_all())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({appender, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not appender.done():
                server.close()
                await self._finish()
        finally:
            stopped.cancel()
            server.close()
            path.unlink(missing_ok=True)
            for writer in list(self._connections):
                writer.close()
            appender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await appender  # an unexpected error of the appender is this process's error

    async def _finish(self) -> None:
        """Wait until nothing has come for a while and all is appended; not for ever, where the log is full."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GIVE_UP_SECONDS
        seen = -1
        while (self._bytes or self._received != seen) and loop.time() < deadline:
            seen = self._received
            await asyncio.sleep(QUIET_SECONDS)
        if self._bytes:
            log.error("collector.stopped_with_frames", extra={"bytes": self._bytes})

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                await self._read_one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the sender left; it sends again what was not acknowledged
        except (ValueError, msgspec.MsgspecError):
            log.exception("collector.bad_frame")
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _read_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head_size, body_size = PREFIX.unpack(await reader.readexactly(PREFIX.size))
        if head_size > MAX_HEADER or body_size > MAX_BODY:
            raise ValueError(f"a frame of {head_size} + {body_size} bytes is over the limit")
        envelope: Envelope = unpack(await reader.readexactly(head_size))
        body = await reader.readexactly(body_size) if body_size else b""
        size = head_size + body_size
        async with self._room:
            await self._room.wait_for(lambda: self._bytes == 0 or self._bytes + size <= self._max_waiting)
            self._bytes += size
        self._received += 1
        work = self._assembler.begin(envelope.header, body)
        self._queue.put_nowait(_Waiting(writer, envelope.sequence, size, asyncio.create_task(work)))

    async def _append_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            records = [record for waiting in batch for record in await waiting.records]
            await self._append(records)
            for waiting in batch:
                if not waiting.writer.is_closing():
                    waiting.writer.write(ACK.pack(waiting.sequence))
            async with self._room:
                self._bytes -= sum(waiting.size for waiting in batch)
                self._room.notify_all()
            self._events.emit("collector.backlog", bytes=self._bytes)

    async def _append(self, records: list[tuple[Stream, Record]]) -> None:
        """Append, however long it takes: nothing is acknowledged before, so nothing is lost."""
        wait = 0.2
        while True:
            try:
                return await asyncio.to_thread(self._log.append, records)
            except LogError as error:
                name = "collector.log_full" if isinstance(error, LogFull) else "collector.log_failed"
                log.error(name, extra={"error": str(error), "again_in": wait})
                self._events.emit(name)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)
