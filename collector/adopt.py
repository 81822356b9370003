"""What killed processes left in the spool is sent on. It stays where it is until the collector has it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from collector.errors import SpoolError
from collector.frames import Header
from collector.orphan import Left, Orphan
from collector.spool import Spool
from router import Events

log = logging.getLogger("retort.collector")

EVERY_SECONDS = 10.0
PAGE_BYTES = 4 << 20  # that are read, and sent, at once
PAUSE = 0.2  # until it is asked again whether memory has room

# Takes a frame that stays on disk until it is acknowledged, and says when it is; None where there is no room.
Lend = Callable[[Header, bytes], asyncio.Future[None] | None]


class Adopter:
    """Looks for folders of processes that are gone, and sends their frames by `lend`."""

    def __init__(self, spool: Spool, lend: Lend, events: Events) -> None:
        self._spool = spool
        self._lend = lend
        self._events = events
        self._left_alone: set[Path] = set()  # of another key
        self._told: set[Path] = set()
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Lock()  # held while it is written down what the collector has

    def start(self) -> None:
        """Look in the background, now and then, until closed."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; a folder that the collector has all of is removed before."""
        if self._task is not None:
            async with self._ending:
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                orphans = await asyncio.to_thread(self._spool.orphans)
            except OSError as error:
                self._tell(self._spool.folder.parent, error)
                orphans = []
            for orphan in orphans:
                try:
                    if orphan.folder not in self._left_alone:
                        await self._send_on(orphan)
                except SpoolError as error:
                    self._left_alone.add(orphan.folder)
                    self._tell(orphan.folder, error)
                except OSError as error:
                    self._tell(orphan.folder, error)
                finally:
                    orphan.close()
            await asyncio.sleep(EVERY_SECONDS)

    async def _send_on(self, orphan: Orphan) -> None:
        frames, count = orphan.frames(), 0
        page = await asyncio.to_thread(_page, frames)
        while page:
            following = await asyncio.to_thread(_page, frames)
            for left in page:
                done = await self._lent(left)
            await done  # and so all before it
            count += len(page)
            async with self._ending:
                await self._over(orphan, max(left.sequence for left in page), last=not following)
            page = following
        if not count:
            await self._over(orphan, 0, last=True)
        log.info("collector.spool_adopted", extra={"frames": count})

    async def _over(self, orphan: Orphan, sequence: int, *, last: bool) -> None:
        """The collector has all up to this frame. `last`: there are no more."""
        if sequence:
            with contextlib.suppress(OSError):  # then a successor would send them again
                await asyncio.to_thread(orphan.acknowledged, sequence)
        for file in await asyncio.to_thread(orphan.remove) if last else ():
            log.error("collector.spool_damaged", extra={"kept_as": str(file)})
            self._events.emit("collector.spool_damaged")

    async def _lent(self, left: Left) -> asyncio.Future[None]:
        while True:
            done = self._lend(left.header, left.bodies)
            if done is not None:
                return done
            await asyncio.sleep(PAUSE)

    def _tell(self, folder: Path, error: Exception) -> None:
        """Once: what is wrong with it now is wrong at the next look too."""
        if folder not in self._told:
            self._told.add(folder)
            log.error("collector.spool_unreadable", extra={"folder": str(folder), "error": str(error)})
            self._events.emit("collector.spool_damaged")


def _page(frames: Iterator[Left]) -> list[Left]:
    page, size = [], 0
    while size < PAGE_BYTES and (left := next(frames, None)) is not None:
        page.append(left)
        size += len(left.bodies)
    return page
