"""A worker process as the engine sees it."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import msgspec

from exporters.models import GENAI
from gateway.engines.errors import (
    ContextTooLong,
    DecodeFailed,
    EngineError,
    InvalidRequest,
    NoRoom,
    NotReady,
    QueueFull,
    Unfit,
    WorkerGone,
)
from gateway.engines.protocol import (
    LENGTH,
    Cancel,
    Done,
    Embed,
    Encode,
    Event,
    Generate,
    Loaded,
    Options,
    Rank,
    Refused,
    Report,
    Scores,
    Unloadable,
    Vectors,
    Working,
    pack,
    report,
)

log = logging.getLogger("retort.engine")

_ERRORS: dict[str, type[EngineError]] = {
    kind.code: kind for kind in (ContextTooLong, InvalidRequest, QueueFull, DecodeFailed)
}
_UNLOADABLE = {"memory": NoRoom, "package": Unfit}
END_SECONDS = 5.0

Answer = TypeVar("Answer", Vectors, Scores)


class Child:
    """A running worker that has loaded its version. `gone` is set when its process ended, wanted or not."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._next = 0
        self._calls: dict[int, asyncio.Queue[Event | None]] = {}
        self._owed: set[int] = set()
        self._pump: asyncio.Task[None] | None = None
        self._heard = 0.0
        self.gone = asyncio.Event()
        self.loaded = Loaded()

    @classmethod
    async def start(
        cls, folder: Path, *, threads: int, timeout: float, runtime: str = GENAI, cache_gb: float = 1.0
    ) -> "Child":
        """Start a process and wait until it has loaded `folder` by its `runtime`; `cache_gb`: see Rows. Raises
        NotReady, NoRoom, Unfit, WorkerGone (it died, or took longer than `timeout` seconds)."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.engines.worker",
                *map(str, (theirs.fileno(), folder, runtime, threads, cache_gb, os.getpid())),
                pass_fds=(theirs.fileno(),),
                # Of NumPy alone, whose products here are small: on a busy machine a second thread costs 10 ms each.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                stdin=asyncio.subprocess.DEVNULL,
            )
        child = cls(process, *await asyncio.open_connection(sock=ours))
        try:
            async with asyncio.timeout(timeout):
                first = await child._receive()
        except TimeoutError:
            await child.close()
            raise WorkerGone(f"{folder} was not loaded within {timeout:.0f} s") from None
        except BaseException:
            await child.close()
            raise
        if isinstance(first, Unloadable):
            await child.close()
            raise _UNLOADABLE.get(first.lacks, NotReady)(first.reason)
        if not isinstance(first, Loaded):
            status = await child.close()
            raise WorkerGone(f"the process that loads {folder} ended ({_ending(status)})")
        child.loaded = first
        child._pump = asyncio.create_task(child._deliver())
        return child

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def place(self) -> object:
        """See Instance."""
        return self._process

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        return _ending(self._process.returncode)

    @property
    def silent(self) -> float:
        """For how many seconds nothing has come although something is due: the rest of an answer, or a word that it is
        given up."""
        return time.monotonic() - self._heard if self._owed else 0.0

    def kill(self) -> None:
        """End the process at once, as a fault; `gone` is set when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def generate(self, messages: Sequence[dict[str, str]], options: Options) -> AsyncGenerator[Event, None]:
        """The events of one answer: Started, Assessed where it is asked for, Pieces, Done. Closing the generator early
        cancels the decoding.

        Raises ContextTooLong, InvalidRequest, DecodeFailed, WorkerGone.
        """
        order = Generate(id=self._number(), messages=list(messages), options=options, at=time.monotonic())
        async with aclosing(self._answers(order)) as events:
            async for event in events:
                yield event

    async def embed(self, texts: Sequence[str], *, truncate: bool) -> Vectors:
        """A vector for each text. Cancelling cancels the work. Raises ContextTooLong, QueueFull, DecodeFailed,
        WorkerGone."""
        order = Embed(id=self._number(), texts=list(texts), truncate=truncate, at=time.monotonic())
        return await self._whole(order, Vectors)

    async def rank(self, query: str, documents: Sequence[str], *, truncate: bool) -> Scores:
        """A score for each document. As `embed`."""
        order = Rank(id=self._number(), query=query, documents=list(documents), truncate=truncate, at=time.monotonic())
        return await self._whole(order, Scores)

    def _number(self) -> int:
        self._next += 1
        return self._next

    async def _whole(self, order: Encode, kind: type[Answer]) -> Answer:
        async with aclosing(self._answers(order)) as events:
            async for event in events:
                if isinstance(event, kind):
                    return event
        raise WorkerGone

    async def _answers(self, order: Generate | Encode) -> AsyncGenerator[Event, None]:
        if self.gone.is_set():
            raise WorkerGone
        if not self._owed:
            self._heard = time.monotonic()
        self._owed.add(order.id)
        events = self._calls[order.id] = asyncio.Queue()
        over = False
        try:
            self._writer.write(pack(order))
            while not over:
                event = await events.get()
                over = event is None or isinstance(event, Done | Vectors | Scores | Refused)
                if event is None:
                    raise WorkerGone
                if isinstance(event, Refused):
                    kind = _ERRORS.get(event.code, DecodeFailed)
                    default = "messages" if kind.status == 400 else None
                    raise kind(event.message, param=event.param or default)
                yield event
        finally:
            del self._calls[order.id]
            if not over:
                self._writer.write(pack(Cancel(order.id)))

    async def close(self) -> int | None:
        """End the process: it ends with its connection, and is killed if it doesn't. Returns its exit status."""
        self._writer.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                with contextlib.suppress(OSError):
                    await self._writer.wait_closed()
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        if self._pump is not None:
            await self._pump
        return self._process.returncode

    async def _receive(self) -> Report | None:
        try:
            head = await self._reader.readexactly(LENGTH.size)
            return report(await self._reader.readexactly(*LENGTH.unpack(head)))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def _deliver(self) -> None:
        try:
            while (event := await self._receive()) is not None:
                self._heard = time.monotonic()
                if isinstance(event, Loaded | Unloadable | Working):
                    continue
                if isinstance(event, Done | Vectors | Scores | Refused):
                    self._owed.discard(event.id)
                if call := self._calls.get(event.id):
                    call.put_nowait(event)
        except msgspec.MsgspecError:
            log.exception("engine.worker_unreadable")
        finally:
            self._writer.close()
            await self._process.wait()
            self.gone.set()
            self._owed.clear()
            for call in self._calls.values():
                call.put_nowait(None)


def _ending(status: int | None) -> str:
    if status is None:
        return "still running"
    return f"status {status}" if status >= 0 else f"signal {-status}"
