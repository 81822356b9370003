"""The registry as a worker sees it: read at most once a second, beside the requests, never in their way."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from router import Registry, Snapshot

log = logging.getLogger("retort.gateway")

INTERVAL_SECONDS = 1.0


class Snapshots:
    """Holds the last snapshot. `open_registry` is called, and the registry used, in one thread of its own.

    A registry that fails leaves the last snapshot in force; before the first one all traffic is the teacher's.
    """

    def __init__(self, open_registry: Callable[[], Registry], *, interval: float = INTERVAL_SECONDS) -> None:
        self._open = open_registry
        self._interval = interval
        self._registry: Registry | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self.current = Snapshot(rollouts={}, endpoints={})

    async def start(self) -> None:
        """Read once, and go on reading."""
        await self.refresh()
        self._task = asyncio.create_task(self._run())

    async def refresh(self) -> None:
        """Read now."""
        try:
            self.current = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        except Exception:
            # The edge of a loop: whatever a registry raises, requests go on as they were routed before.
            if not self._failing:
                log.exception("gateway.registry_failed")
            self._failing = True
            return
        if self._failing:
            log.warning("gateway.registry_back")
        self._failing = False

    async def close(self) -> None:
        """Stop reading and close the registry."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.refresh()

    def _read(self) -> Snapshot:
        if self._registry is None:
            self._registry = self._open()
        return self._registry.snapshot()

    def _close(self) -> None:
        if self._registry is not None:
            self._registry.close()
