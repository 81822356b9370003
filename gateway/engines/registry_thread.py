"""The registry beside an event loop: opened and used in one thread of its own, because its calls wait for a disk."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from router.errors import UnknownVersion
from router.registry import Registry, Version

T = TypeVar("T")


class RegistryThread:
    """`open_registry` is called in the thread, at the first use."""

    def __init__(self, open_registry: Callable[[], Registry]) -> None:
        self._open = open_registry
        self._registry: Registry | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")

    async def wanted(self, engine: str, most: int) -> Sequence[Version]:
        """See Registry. All of these raise RouterError."""
        return await self._call(lambda r: r.wanted(engine, most))

    async def publish(self, version_id: str, *, engine: str, url: str) -> None:
        """See Registry."""
        await self._call(lambda r: r.publish(version_id, engine=engine, url=url))

    async def withdraw(self, version_id: str) -> None:
        """See Registry."""
        await self._call(lambda r: r.withdraw(version_id))

    async def published(self, engine: str) -> list[Version]:
        """The engine's versions that have an endpoint now."""

        def find(registry: Registry) -> list[Version]:
            found = []
            for version_id in registry.snapshot().endpoints:
                with contextlib.suppress(UnknownVersion):
                    found.append(registry.version(version_id))
            return [version for version in found if version.engine == engine]

        return await self._call(find)

    async def _call(self, use: Callable[[Registry], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._use, use)

    async def close(self) -> None:
        """Close the registry and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _use(self, use: Callable[[Registry], T]) -> T:
        if self._registry is None:
            self._registry = self._open()
        return use(self._registry)

    def _close(self) -> None:
        if self._registry is not None:
            self._registry.close()
