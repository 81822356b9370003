"""Scrubbing in processes of its own: the collector's loop stays free, and a stuck or killed worker costs one record.

Fails closed: every way out of `scrub` but a scrubbed value is a ScrubError.
"""

import asyncio
import ctypes
import logging
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from collector.errors import ScrubError, without_text
from collector.scrub import VERSION, Scrubbed, Scrubber
from router import Events

log = logging.getLogger("retort.scrub")

TIMEOUT = 30.0

_scrubber: Scrubber | None = None  # of this worker process, made by its initialiser


class ScrubPool:
    """Holds the worker processes. `keep`: each route's words that stay as they are."""

    version = VERSION

    def __init__(
        self,
        state: str,
        *,
        keep: Mapping[str, tuple[str, ...]],
        workers: int,
        events: Events,
        timeout: float = TIMEOUT,
    ) -> None:
        self._salt = read_salt(Path(state) / "run" / "scrub.salt")
        self._keep = dict(keep)
        self._workers = workers
        self._events = events
        self._timeout = timeout
        self._pool: ProcessPoolExecutor | None = None

    async def start(self) -> None:
        """Start the workers and wait until one has loaded its models. Raises ScrubError."""
        self._pool = self._made()
        await self._once([], route="", cluster="", untouchable=frozenset())

    async def scrub(
        self, values: list[Any], *, route: str, cluster: str, untouchable: frozenset[str] = frozenset()
    ) -> Scrubbed:
        """See Scrubber.scrub. A worker that was killed is replaced, and the record tried once more."""
        began = time.monotonic()
        try:
            try:
                return await self._once(values, route=route, cluster=cluster, untouchable=untouchable)
            except BrokenProcessPool:
                return await self._once(values, route=route, cluster=cluster, untouchable=untouchable)
        except BrokenProcessPool as error:
            raise ScrubError("worker_killed") from error
        finally:
            self._events.emit("collector.scrub_seconds", seconds=time.monotonic() - began)

    async def close(self) -> None:
        """End the workers."""
        if self._pool:
            pool, self._pool = self._pool, None
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def _once(self, values: list[Any], *, route: str, cluster: str, untouchable: frozenset[str]) -> Scrubbed:
        pool = self._pool
        if pool is None:
            raise ScrubError("closed")
        try:
            work = asyncio.get_running_loop().run_in_executor(pool, _scrub, values, route, cluster, untouchable)
            return await asyncio.wait_for(work, self._timeout)
        except TimeoutError as error:
            self._replace(pool, kill=True)  # a worker that hangs would hold its place for ever
            raise ScrubError("timeout") from error
        except BrokenProcessPool:
            self._replace(pool)
            raise
        except ScrubError:
            raise
        except Exception as error:
            # The edge of the worker: whatever went wrong there, the text goes nowhere.
            log.error("scrub.failed", extra=without_text(error))
            raise ScrubError(type(error).__name__) from error

    def _replace(self, broken: ProcessPoolExecutor, *, kill: bool = False) -> None:
        if self._pool is not broken:
            return  # another record found it first
        log.error("scrub.pool_replaced", extra={"hung": kill})
        if kill:
            for process in list((broken._processes or {}).values()):
                process.kill()
        broken.shutdown(wait=False, cancel_futures=False)
        self._pool = self._made()

    def _made(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._salt, self._keep, os.getpid()),
        )


def read_salt(path: Path) -> bytes:
    """The state folder's secret, made at the first use; readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    mine.touch(0o600)
    mine.write_bytes(secrets.token_bytes(32))
    try:
        os.link(mine, path)  # atomic, and fails where another process was first
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return path.read_bytes()


def _prepare(salt: bytes, keep: Mapping[str, tuple[str, ...]], parent: int) -> None:
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
    _scrubber = Scrubber(salt, keep=keep)


def _scrub(values: list[Any], route: str, cluster: str, untouchable: frozenset[str]) -> Scrubbed:
    if _scrubber is None:
        raise ScrubError("not_prepared")
    return _scrubber.scrub(values, route=route, cluster=cluster, untouchable=untouchable)
