"""One cycle of a route at a time, over all machines that share a registry: a lease, renewed while a cycle runs."""

import asyncio
import fcntl
import logging
import os
import time
import uuid
from pathlib import Path

from router import RouterError, open_registry
from router.config import Config
from router.registry import Registry

log = logging.getLogger("retort.retrainer")

LEASE_SECONDS = 120.0
RENEWALS = 4  # in that time
IDENTITY = "retrainer.id"  # in the state folder
LOOKS = 5  # at an identity's lock, which `at_work` takes for a moment
LOOK_SECONDS = 0.1


class Lost(asyncio.Event):
    """Set when a cycle must end: a quarter of the lease before it may be another's. `gone`: it is another's already."""

    gone = False


class Leases:
    """This process's. `seconds`: after its last renewal a lease is anybody's."""

    def __init__(self, config: Config, *, seconds: float = LEASE_SECONDS) -> None:
        self._url, self._seconds = config.registry, seconds
        self._identity = _Identity(Path(config.state) / IDENTITY)
        self._holder = f"{os.uname().nodename}:{self._identity.name}"
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

    async def keep(self, route: str, lost: Lost) -> None:
        """Renew until cancelled, or until `lost`: also where the registry doesn't answer in time."""
        part = self._seconds / RENEWALS
        until = time.monotonic() + self._seconds - part  # the lease itself began earlier, when it was asked for
        while True:
            await asyncio.sleep(min(part, until - time.monotonic()))
            asked = time.monotonic()
            try:
                held = await asyncio.wait_for(asyncio.to_thread(self._ask, route), max(0.0, until - asked))
            except (RouterError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self._registry = None  # the thread that waits still has it
                log.warning("retrainer.lease_not_renewed", extra={"route": route, "error": str(error) or "no answer"})
                if time.monotonic() >= until:
                    break
                continue
            if not held:
                lost.gone = True
                break
            until = asked + self._seconds - part
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
        self._identity.close()
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


class _Identity:
    """Who holds a lease: the retrainer of a state folder, also when it was killed and starts again, so that it needn't
    wait for its own lease. A second one beside it has a name of its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        own = uuid.uuid4().hex[:12]
        if not self._locked():
            self.name = own
            return
        self._file.seek(0)
        self.name = self._file.read().strip() or own
        self._file.truncate(0)
        self._file.write(self.name)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _locked(self) -> bool:
        for look in range(LOOKS):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOOK_SECONDS if look < LOOKS - 1 else 0.0)
            else:
                return True
        return False


def at_work(state: str | Path) -> bool:
    """Whether a retrainer of a state folder runs."""
    try:
        with (Path(state) / IDENTITY).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _name(route: str) -> str:
    return f"retrainer:{route}"
