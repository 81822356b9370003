"""The end of a version's service: it is withdrawn, finishes what it has begun, and its process ends; where it is wanted
again before that, it serves on at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.timing import Timing

log = logging.getLogger("retort.engine")


class Leaving:
    """The versions that are no longer wanted, until their processes have ended.

    `withdraw(hosted, reason)` returns when no gateway sends it requests any more. `ended(hosted)` is called after each
    end.
    """

    def __init__(
        self,
        hosts: Hosts,
        timing: Timing,
        *,
        withdraw: Callable[[Hosted, str], Awaitable[None]],
        ended: Callable[[Hosted], None],
    ) -> None:
        self._hosts, self._timing = hosts, timing
        self._withdraw, self._ended = withdraw, ended
        self._draining: dict[str, tuple[Hosted, asyncio.Task[None]]] = {}
        self._closing: dict[str, Hosted] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, version_id: str) -> bool:
        return version_id in self._draining or version_id in self._closing

    def __iter__(self) -> Iterator[Hosted]:
        return iter([*(hosted for hosted, _ in self._draining.values()), *self._closing.values()])

    def begin(self, hosted: Hosted, *, reason: str) -> None:
        """It is no longer wanted."""
        task = asyncio.create_task(self._leave(hosted, reason))
        self._draining[hosted.version.id] = hosted, task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def back(self, version_id: str) -> Hosted | None:
        """It is wanted again: returned, and nothing happens to it any more, where its process is still whole."""
        hosted, task = self._draining.get(version_id, (None, None))
        if hosted is None or task is None or hosted.child.gone.is_set():
            return None
        del self._draining[version_id]
        task.cancel()
        return hosted

    async def finish(self, seconds: float) -> None:
        """Wait for all that leave, at most so long; then cut off what they have not finished."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        cut = list(self._draining.values())
        for _, task in cut:
            task.cancel()
        await asyncio.gather(*(self._close(hosted) for hosted, _ in cut), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _leave(self, hosted: Hosted, reason: str) -> None:
        log.info("engine.unloading", extra={"version": hosted.version.id, "reason": reason})
        try:
            await self._withdraw(hosted, reason)
            self._hosts.remove(hosted)
            await hosted.idle(self._timing.drain)
        except asyncio.CancelledError:  # by `back`, or by `finish`
            return
        except Exception:
            # The edge of a version's life: its process ends, whatever happened.
            log.exception("engine.unload_failed")
        await self._close(hosted)

    async def _close(self, hosted: Hosted) -> None:
        version_id = hosted.version.id
        self._hosts.remove(hosted)
        del self._draining[version_id]
        self._closing[version_id] = hosted
        if hosted.inside:
            log.error("engine.requests_cut", extra={"version": version_id, "count": hosted.inside})
        try:
            await hosted.child.close()
        finally:
            del self._closing[version_id]
            self._ended(hosted)
