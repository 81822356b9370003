"""One cycle of a route at a time, over all machines that share a registry: a lease, renewed while a cycle runs."""

import asyncio
import logging
import os
import time
import uuid

from router import RouterError, open_registry
from router.config import Config
from router.registry import Registry

log = logging.getLogger("retort.retrainer")

LEASE_SECONDS = 60.0
RENEWALS = 4  # in that time


class Leases:
    """This process's. `seconds`: after its last renewal a lease is anybody's."""

    def __init__(self, config: Config, *, seconds: float = LEASE_SECONDS) -> None:
        self._url, self._seconds = config.registry, seconds
        self._holder = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._registry: Registry | None = None
        self._waiting: set[str] = set()  # routes of which it is told already

    def take(self, route: str) -> bool:
        """Whether this process may run a cycle of the route now; False also while the registry can't be reached."""
        try:
            taken = self._ask(route)
        except RouterError as error:
            self._tell(route, str(error))
            return False
        if taken:
            self._waiting.discard(route)
        else:
            self._tell(route, "another retrainer holds the route's lease")
        return taken

    async def keep(self, route: str, lost: asyncio.Event) -> None:
        """Renew until cancelled. Sets `lost` where somebody else may hold it, before they can."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._seconds / RENEWALS)
            try:
                if not await asyncio.to_thread(self._ask, route):
                    break
                renewed = time.monotonic()
            except RouterError as error:
                log.warning("retrainer.lease_not_renewed", extra={"route": route, "error": str(error)})
                if time.monotonic() - renewed > self._seconds * (1.0 - 1.5 / RENEWALS):
                    break
        lost.set()

    def release(self, route: str) -> None:
        """Give it back."""
        try:
            if self._registry is not None:
                self._registry.release(_name(route), holder=self._holder)
        except RouterError:
            log.warning("retrainer.lease_kept", extra={"route": route})  # it expires by itself

    def close(self) -> None:
        """Close the connection."""
        if self._registry is not None:
            self._registry.close()

    def _ask(self, route: str) -> bool:
        if self._registry is None:
            self._registry = open_registry(self._url)
        return self._registry.lease(_name(route), holder=self._holder, seconds=self._seconds)

    def _tell(self, route: str, why: str) -> None:
        if route not in self._waiting:
            self._waiting.add(route)
            log.warning("retrainer.waits", extra={"route": route, "error": why})


def _name(route: str) -> str:
    return f"retrainer:{route}"
