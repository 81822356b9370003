"""The collector's server: frames in, durable records out, an acknowledgement for each.

    read (bounded) -> parse, score, observe -> append the evidence -> scrub in the pool -> append the interaction -> ack
                                                                  -> ask the judge     -> append the pair        ->

Evidence waits for no scrubbing, and for no judge, so that harm is seen, and a command obeyed, whatever is still to be
done. It is appended in the order of arrival, of all senders together; a judged pair comes when it is judged. What waits
is bounded in bytes, and beyond that the sockets are not read. A frame that is not acknowledged stays with its sender.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from collector.assemble import Assembler
from collector.errors import LogError, LogFull, without_text
from collector.frames import ACK, MAX_BODY, MAX_HEADER, PREFIX, Envelope, claimed, socket_path, unpack
from collector.interactions import Interactions
from collector.log import EventLog, Later, Records
from collector.mask import masking
from collector.open_log import open_log
from collector.retention import keep_no_longer
from collector.salt import read_salt
from collector.scrub_pool import ScrubPool
from collector.sealing import Sealing
from collector.send import LONGEST_BACKOFF
from collector.settling import settling
from collector.subjects import open_subjects
from router import Config, Events

log = logging.getLogger("retort.collector")

MAX_WAITING = 256 << 20
BATCH = 500
LONGEST_RETRY = 5.0
QUIET_SECONDS = 0.3
LISTEN_SECONDS = 60.0  # after the word to stop, to senders that have not left: they may still wait for answers
GIVE_UP_SECONDS = 40.0  # without any progress; one text may take 30
TELL_SECONDS = 5.0
DUE_SECONDS = 1.0


async def run(config: Config, *, events: Events, stop: asyncio.Event, gateway: str | None = None) -> None:
    """Serve until stopped; returns when all that was received is in the log. Raises CollectorError, LogError.

    `gateway`: the URL where a judge is asked, if it listens elsewhere than the configuration says.
    """
    path = socket_path(config.state)
    with claimed(path):
        # Who appends: of the state folder, for as long as it is.
        name = read_salt(Path(config.state) / "run" / "appender.id").hex()[:16]
        evidence_log = await asyncio.to_thread(open_log, config.log, kafka=config.kafka, appender=name)
        subjects = open_subjects(config.subjects)
        routes = {name: policy.capture for name, policy in config.routes.items()}
        pool = ScrubPool(config.state, routes=routes, workers=config.scrub_workers, events=events)
        try:
            async with settling(config, events, gateway) as quality, masking(config):
                assembler = Assembler(
                    config, pool, events,
                    sealing=Sealing(subjects, events), quality=quality,
                    interactions=Interactions(evidence_log, subjects),
                )  # fmt: skip
                await asyncio.to_thread(assembler.restore, evidence_log)
                await pool.start()
                keeping = asyncio.create_task(keep_no_longer(config, evidence_log, subjects))
                try:
                    await Receiver(assembler, evidence_log, events).serve(path, stop)
                finally:
                    keeping.cancel()
        finally:
            await pool.close()
            subjects.close()
            evidence_log.close()


class _Frame(msgspec.Struct):
    """A frame on its way into the log. `parts`: how many of its parts are not durable yet. `then`: the last of them,
    which begins when the first is."""

    sequence: int
    size: int
    parts: int
    then: Callable[[], Later] | None = None


class _Sender:
    """One connection: its frames, oldest first, until they are acknowledged in their order."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: deque[_Frame] = deque()

    def owes(self, frame: _Frame) -> None:
        """This frame is to be acknowledged, after those before it."""
        self._frames.append(frame)

    def acknowledge(self) -> None:
        """Say how far everything is durable, if that is further than before."""
        last = None
        while self._frames and not self._frames[0].parts:
            last = self._frames.popleft().sequence
        if last is not None and not self._writer.is_closing():
            self._writer.write(ACK.pack(last))


class Receiver:
    """Reads frames from any number of senders and appends what an Assembler makes of them."""

    def __init__(
        self,
        assembler: Assembler,
        target: EventLog,
        events: Events,
        *,
        max_waiting: int = MAX_WAITING,
        listen_seconds: float = LISTEN_SECONDS,
    ) -> None:
        self._assembler = assembler
        self._log = target
        self._events = events
        self._max_waiting = max_waiting
        self._listen_seconds = listen_seconds
        self._left = asyncio.Event()
        self._deaf = False
        self._queue: asyncio.Queue[tuple[_Sender | None, _Frame, Records]] = asyncio.Queue()
        self._unfinished: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._room = asyncio.Condition()
        self._received = 0
        self._finished = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def serve(self, path: Path, stop: asyncio.Event) -> None:
        """Listen at `path` until stopped, and on while senders are connected; then finish what was received."""
        # Told to stop while it loaded its models, it is still waited for: who waits tries again within LONGEST_BACKOFF.
        quiet = QUIET_SECONDS + (LONGEST_BACKOFF if stop.is_set() else 0.0)
        server = await asyncio.start_unix_server(self._connected, str(path))
        path.chmod(0o600)
        appender = asyncio.create_task(self._append_all())
        clock = asyncio.create_task(self._watch_the_clock())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({appender, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not appender.done():
                await self._hear_out(quiet)
                server.close()
                await self._finish()
        finally:
            stopped.cancel()
            server.close()
            path.unlink(missing_ok=True)
            for writer in list(self._connections):
                writer.close()
            for task in (appender, clock, *self._unfinished):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await appender  # an unexpected error of the appender is this process's error

    async def _hear_out(self, quiet: float) -> None:
        """Wait until the senders have left; not without end: who stays keeps what is not acknowledged."""
        await asyncio.sleep(quiet)  # who was about to connect is among the connections now
        if self._connections:
            extra = {"senders": len(self._connections), "at_most_seconds": self._listen_seconds}
            log.info("collector.hears_out", extra=extra)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._listen_seconds):
                while self._connections:
                    self._left.clear()
                    await self._left.wait()
        self._deaf = True

    async def _finish(self) -> None:
        """Wait until all that was received is appended; not for ever, where nothing gets done (the log is full)."""
        loop = asyncio.get_running_loop()
        now = told = progressed = loop.time()
        seen = -1
        while self._bytes and now < progressed + GIVE_UP_SECONDS:
            if seen != self._finished:
                seen, progressed = self._finished, now
            if now > told + TELL_SECONDS:
                log.info("collector.finishing", extra={"frames": self._received - self._finished})
                told = now
            await asyncio.sleep(QUIET_SECONDS)
            now = loop.time()
        if self._bytes:
            log.error("collector.stopped_with_frames", extra={"frames": self._received - self._finished})

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        sender = _Sender(writer)
        try:
            while not self._deaf:
                await self._read_one(reader, sender)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the sender left; it sends again what was not acknowledged
        except (ValueError, msgspec.MsgspecError):
            log.exception("collector.bad_frame")
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(writer)
            self._left.set()
            writer.close()

    async def _read_one(self, reader: asyncio.StreamReader, sender: _Sender) -> None:
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
        made = self._assembler.begin(envelope.header, body)
        frame = _Frame(envelope.sequence, size, 1 + len(made.later) + (made.then is not None), made.then)
        sender.owes(frame)
        self._queue.put_nowait((sender, frame, made.now))
        for later in made.later:
            self._begin_part(sender, frame, later)

    def _begin_part(self, sender: _Sender | None, frame: _Frame, later: Later) -> None:
        task = asyncio.create_task(self._finish_part(sender, frame, later))
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)

    async def _finish_part(self, sender: _Sender | None, frame: _Frame, later: Later) -> None:
        self._queue.put_nowait((sender, frame, await later))

    async def _watch_the_clock(self) -> None:
        """Append what no frame brings, but time."""
        while True:
            await asyncio.sleep(DUE_SECONDS)
            try:
                records = self._assembler.due()
            except Exception as error:  # the edge of a loop
                log.error("collector.clock_failed", extra=without_text(error))
                continue
            if records:
                self._received += 1
                self._queue.put_nowait((None, _Frame(0, 0, parts=1), records))

    async def _append_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._append([record for _, _, records in batch for record in records])
            freed = 0
            for sender, frame, _ in batch:
                if frame.then is not None:
                    self._begin_part(sender, frame, frame.then())
                    frame.then = None
                frame.parts -= 1
                if not frame.parts:
                    self._finished += 1
                    freed += frame.size
            for heard in {sender for sender, _, _ in batch if sender is not None}:
                heard.acknowledge()
            async with self._room:
                self._bytes -= freed
                self._room.notify_all()
            self._events.emit("collector.backlog", bytes=self._bytes)

    async def _append(self, records: Records) -> None:
        """Append, however long it takes: nothing is acknowledged before, so nothing is lost."""
        wait, told = 0.2, ""
        while True:
            try:
                await asyncio.to_thread(self._log.append, records)
            except LogError as error:
                name = "collector.log_full" if isinstance(error, LogFull) else "collector.log_failed"
                if name != told:
                    log.error(name, extra={"error": str(error)})
                    told = name
                self._events.emit(name)
            else:
                if told:
                    log.info("collector.log_back")
                return
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)
