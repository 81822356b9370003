"""Versions that share a server: when one comes or goes there, the others must still answer as they should."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from gateway.engines.errors import EngineError, NotReady
from gateway.engines.hosting import Hosted
from gateway.engines.instance import Instance

log = logging.getLogger("retort.engine")


class Siblings:
    """`hosted()`: all that answer now. `probe(child)`: see Loader.again. `failed(hosted, reason)`: called where one
    no longer answers as it should."""

    def __init__(
        self,
        hosted: Callable[[], Iterable[Hosted]],
        *,
        probe: Callable[[Instance], Awaitable[None]],
        failed: Callable[[Hosted, str], None],
    ) -> None:
        self._hosted, self._probe, self._failed = hosted, probe, failed
        self._one_check = asyncio.Semaphore(1)
        self._checks: set[asyncio.Task[None]] = set()
        self._closed = False

    def changed(self, child: Instance) -> None:
        """It has been loaded beside others, or unloaded: have those probed again."""
        if not self._closed and self._beside(child):
            check = asyncio.create_task(self._check(child))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def close(self) -> None:
        """Probe no more."""
        self._closed = True
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    def _beside(self, child: Instance) -> list[Hosted]:
        return [
            hosted
            for hosted in self._hosted()
            if hosted.child is not child and hosted.child.place is child.place and not hosted.child.gone.is_set()
        ]

    async def _check(self, child: Instance) -> None:
        async with self._one_check:
            for hosted in self._beside(child):
                try:
                    await self._probe(hosted.child)
                except NotReady as error:
                    self._failed(hosted, f"probed again when another came to its server, or went: {error}")
                except (EngineError, TimeoutError) as error:
                    # Busy with users, say, which tells nothing of its answers; where its server has ended that is seen.
                    if not hosted.child.gone.is_set():
                        told = {"version": hosted.version.id, "reason": f"{type(error).__name__}: {error}"}
                        log.warning("engine.not_probed_again", extra=told)
                except Exception:
                    # The edge of a task: whatever happens to one probe, the others are made.
                    log.exception("engine.probe_failed")
