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

    async def run(self) -> None:
        """Until cancelled."""
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
        while page := await asyncio.to_thread(_page, frames):
            for left in page:
                done = await self._lent(left)
            await done  # and so all before it
            count += len(page)
            if last := max(left.sequence for left in page):
                with contextlib.suppress(OSError):  # then a successor would send them again
                    await asyncio.to_thread(orphan.acknowledged, last)
        kept = await asyncio.to_thread(orphan.remove)
        log.info("collector.spool_adopted", extra={"frames": count})
        for file in kept:
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
