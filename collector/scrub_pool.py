"""Scrubbing in processes of its own: the collector's loop stays free, and a stuck or killed worker costs one record.

Each worker is an executor to itself and has one text at a time: its death is no other text's, and the time limit counts
from when it begins on a text, not from when the text began to wait for it.
Fails closed: every way out of `scrub` but a scrubbed value is a ScrubError.
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from collector.errors import ScrubError, without_text
from collector.salt import read_salt
from collector.scrub import Scrubber
from collector.scrubbed import Beside, Scrubbed
from router import CapturePolicy, Events

log = logging.getLogger("retort.scrub")

TIMEOUT = 30.0  # seconds on one record
LOADING = 120.0  # seconds until a new worker has its models

_scrubber: Scrubber | None = None  # of this worker process, made by its initialiser


class _Worker:
    """One process. `fit`: it has its models and nothing runs in it, so that it may have another text."""

    def __init__(self, salt: bytes, routes: Mapping[str, CapturePolicy], number: int) -> None:
        self.number = number
        self._executor = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(salt, routes, os.getpid()),
        )
        self._loaded = self._executor.submit(_prepared)
        self.fit = False

    async def loaded(self) -> None:
        """Wait for its models. Raises TimeoutError, BrokenProcessPool."""
        async with asyncio.timeout(LOADING):
            await asyncio.shield(asyncio.wrap_future(self._loaded))
        self.fit = True

    async def scrub(self, limit: float, *task: Any) -> Scrubbed:
        """Raises TimeoutError, BrokenProcessPool, and whatever went wrong with the text."""
        await self.loaded()
        self.fit = False
        work = asyncio.wrap_future(self._executor.submit(_scrub, *task))
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(work)  # never cancelled: the executor would stumble over it
        finally:
            self.fit = work.done() and not isinstance(work.exception(), BrokenProcessPool)

    def end(self, *, wait: bool = False) -> None:
        """Kill what still runs, and let the rest go."""
        if not self.fit:
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=wait, cancel_futures=False)


class ScrubPool:
    """Holds the worker processes. `routes`: each route's settings."""

    def __init__(
        self,
        state: str,
        *,
        routes: Mapping[str, CapturePolicy],
        workers: int,
        events: Events,
        timeout: float = TIMEOUT,
    ) -> None:
        self._salt = read_salt(Path(state) / "run" / "scrub.salt")
        self._routes = dict(routes)
        self._size = workers
        self._events = events
        self._timeout = timeout
        self._free = asyncio.Semaphore(workers)  # one permit a worker; whoever waits for one waits without a limit
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()  # empty when it is closed

    async def start(self) -> None:
        """Start the workers and wait until they have loaded their models. Raises ScrubError."""
        self._idle = [self._made(number) for number in range(self._size)]
        try:
            await asyncio.gather(*(worker.loaded() for worker in self._idle))
        except (BrokenProcessPool, TimeoutError) as error:
            await self.close()
            raise ScrubError("worker_not_loaded") from error

    async def scrub(
        self,
        values: list[Any],
        *,
        route: str,
        cluster: str,
        untouchable: frozenset[str] = frozenset(),
        compared: frozenset[int] = frozenset(),
        reversible: bool = False,
        beside: Beside | None = None,
    ) -> Scrubbed:
        """See Scrubber.scrub. A worker that was killed is replaced, and the record tried once more."""
        task = (values, route, cluster, untouchable, compared, reversible, beside)
        try:
            try:
                return await self._once(cluster, *task)
            except BrokenProcessPool:
                return await self._once(cluster, *task)
        except BrokenProcessPool as error:
            raise ScrubError("worker_killed") from error

    async def close(self) -> None:
        """End the workers; who waits for one gets a ScrubError."""
        ending, self._all, self._idle = self._all, set(), []
        await asyncio.gather(*(asyncio.to_thread(worker.end, wait=True) for worker in ending))

    def _taken(self, cluster: str) -> _Worker:
        """The conversation's own worker, if it is idle: that one remembers what the conversation says again."""
        own = zlib.crc32(cluster.encode()) % self._size
        worker = next((worker for worker in self._idle if worker.number == own), self._idle[-1])
        self._idle.remove(worker)
        return worker

    async def _once(self, cluster: str, *task: Any) -> Scrubbed:
        async with self._free:
            if not self._idle:
                raise ScrubError("closed")
            worker = self._taken(cluster)
            began = time.monotonic()
            try:
                return await worker.scrub(self._timeout, *task)
            except TimeoutError as error:
                raise ScrubError("timeout") from error
            except (BrokenProcessPool, ScrubError):
                raise
            except Exception as error:
                # The edge of the worker: whatever went wrong there, the text goes nowhere.
                log.error("scrub.failed", extra=without_text(error))
                raise ScrubError(type(error).__name__) from error
            finally:
                self._give_back(worker)
                self._events.emit("collector.scrub_seconds", seconds=time.monotonic() - began)

    def _give_back(self, worker: _Worker) -> None:
        if worker not in self._all:
            return  # closed meanwhile
        if not worker.fit:
            log.error("scrub.worker_replaced")
            self._all.remove(worker)
            worker.end()
            worker = self._made(worker.number)
        self._idle.append(worker)

    def _made(self, number: int) -> _Worker:
        worker = _Worker(self._salt, self._routes, number)
        self._all.add(worker)
        return worker


def _prepare(salt: bytes, routes: Mapping[str, CapturePolicy], parent: int) -> None:
    """In each worker: the parent decides when it ends, and it ends with the parent."""
    global _scrubber
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for unused in ("torch", "transformers"):
        # spaCy and Presidio import them where they are installed, for 15 s and a gigabyte, and do without them else.
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]
    _scrubber = Scrubber(salt, routes=routes)


def _prepared() -> None:
    """Done once the initialiser is."""


def _scrub(
    values: list[Any],
    route: str,
    cluster: str,
    untouchable: frozenset[str],
    compared: frozenset[int],
    reversible: bool,
    beside: Beside | None,
) -> Scrubbed:
    if _scrubber is None:
        raise ScrubError("not_prepared")
    return _scrubber.scrub(
        values, route=route, cluster=cluster, untouchable=untouchable, compared=compared, reversible=reversible,
        beside=beside,
    )  # fmt: skip
