"""What should be loaded, and what is: the loop that makes them the same.

A version is verified (digests), loaded in a process of its own, probed with real generations, and only then
published. One is loaded at a time, the most important first (see Precedence); a load is given up when it is no longer
wanted, or when users wait for another. One that is no longer wanted is withdrawn first; it goes on answering while
gateways may still hold the old endpoint, finishes what is in flight, and its process ends; wanted again before that, it
serves on. One that dies is withdrawn at once and loaded again after a pause. What has been withdrawn and still finishes
is in memory beside the `max_loaded`.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from exporters.models import ArtefactError
from gateway.engines.errors import EngineError, NoRoom, WorkerGone
from gateway.engines.failures import Failures
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.instance import Instance
from gateway.engines.leaving import Leaving
from gateway.engines.loading import Loader
from gateway.engines.precedence import Precedence, interrupts
from gateway.engines.registry_thread import RegistryThread
from gateway.engines.reports import Reports
from gateway.engines.siblings import Siblings
from gateway.engines.timing import Timing
from router.config_engines import EngineSettings
from router.errors import RouterError
from router.events import Events
from router.evidence import RouteEvent
from router.registry import Version

log = logging.getLogger("retort.engine")


class Identity(msgspec.Struct, frozen=True):
    """The engine's `name` in the configuration, and the address that gateways reach it at (no trailing slash).
    `selective`: the routes whose students serve only what they are sure of."""

    name: str
    url: str
    selective: frozenset[str] = frozenset()


class Reconciler:
    """`send(event)` hands an event to the collector; False when it can't be taken now."""

    def __init__(
        self,
        settings: EngineSettings,
        identity: Identity,
        *,
        loader: Loader,
        registry: RegistryThread,
        send: Callable[[RouteEvent], bool],
        events: Events,
        timing: Timing,
    ) -> None:
        self.hosts = Hosts()
        self._settings = settings
        self._identity = identity
        self._loader = loader
        self._registry = registry
        self._reports = Reports(identity.name, send)
        self._events = events
        self._timing = timing
        self._failures = Failures(first=timing.first_backoff, most=timing.longest_backoff)
        self._precedence = Precedence()
        self._wanted: dict[str, Version] = {}  # the most important first
        self._loading: tuple[Version, asyncio.Task[None]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._publish: dict[str, str] = {}  # version -> url
        self._withdraw: set[str] = set()
        self._published: set[str] = set()  # what may have an endpoint: from before it gets one until it has lost it
        self._wake = asyncio.Event()
        self._leaving = Leaving(self.hosts, timing, withdraw=self._take_out, ended=self._ended)
        self._siblings = Siblings(
            lambda: {hosted.version.id: hosted for hosted in (*self._leaving, *self.hosts)}.values(),
            probe=loader.again,
            failed=self._failed_beside,
        )
        self._failing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile until `stop` is set; then withdraw and unload everything."""
        stopping = asyncio.create_task(stop.wait())
        stale = False
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    stale = stale or await self._withdraw_stale()
                    await self._tick()
                    self._failing = False
                except RouterError as error:
                    if not self._failing:
                        log.warning("engine.registry_failed", extra={"error": str(error)})
                    self._failing = True
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({stopping, woken}, timeout=self._timing.tick, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopping.cancel()
            await self._shut_down()

    async def _withdraw_stale(self) -> bool:
        """Endpoints that an earlier process of this engine left behind."""
        for version in await self._registry.published(self._identity.name):
            self._withdraw.add(version.id)
            self._reports.withdrawn(version, "the engine was restarted")
        return True

    async def _tick(self) -> None:
        for hosted in (*self.hosts, *self._leaving):
            if hosted.child.silent > self._timing.hang and not hosted.hangs:
                hosted.hangs = True
                log.error("engine.worker_hangs", extra={"version": hosted.version.id})
                hosted.child.kill()
        await self._settle()
        found = await self._registry.wanted(self._identity.name, self._settings.max_loaded)
        self._wanted = {version.id: version for version in found}
        may = [version for version in found if not self._precedence.stays_out(version.id, self._wanted)]
        for version in may:
            if hosted := self._leaving.back(version.id):
                self._serve(hosted)
        self._load_next(next(filter(self._may_load, may), None))
        for hosted in self.hosts:
            if hosted.version.id not in self._wanted and hosted.version.id not in self._leaving:
                self._leaving.begin(hosted, reason="no longer wanted")

    def _may_load(self, version: Version) -> bool:
        known = version.id in self.hosts or version.id in self._leaving
        loading = self._loading is not None and self._loading[0].id == version.id
        return not known and not loading and not self._failures.blocks(version.id, self._loader.folder(version))

    def _load_next(self, version: Version | None) -> None:
        """Begin with the most important that may be loaded now; what is loading then ends first."""
        if self._loading is not None:
            loading, task = self._loading
            # One that has failed again and again does not keep the others from their loads.
            urgent = version is not None and interrupts(version, loading) and self._failures.attempts(version.id) <= 1
            if (urgent or loading.id not in self._wanted) and not task.cancelling():
                log.info("engine.load_given_up", extra={"version": loading.id})
                task.cancel()
        elif version is not None:
            self._loading = version, asyncio.create_task(self._load(version))

    async def _settle(self) -> None:
        """Write to the registry and tell the collector what is still owed. Raises RouterError."""
        for version_id in list(self._withdraw):
            await self._registry.withdraw(version_id)
            self._withdraw.discard(version_id)
            self._published.discard(version_id)
        for version_id, url in list(self._publish.items()):
            if version_id not in self.hosts:
                del self._publish[version_id]
                continue
            name = self._identity.name
            self._published.add(version_id)
            await self._registry.publish(version_id, engine=name, url=url)
            if self._publish.pop(version_id, None) is None or version_id not in self.hosts:
                self._withdraw.add(version_id)  # it died meanwhile, or was taken out
                continue
            self._reports.ready(self.hosts[version_id].version, url)
        self._reports.flush()

    async def _load(self, version: Version) -> None:
        began = time.monotonic()
        try:
            child = await self._loader.load(version, self._in_memory, self._siblings.changed)
        except (ArtefactError, EngineError) as error:
            self._not_loaded(version, error)
        except Exception as error:
            # The edge of a loop: whatever happens to one version, the others are served.
            log.exception("engine.load_failed")
            self._not_loaded(version, WorkerGone(f"{type(error).__name__} while loading"))
        else:
            selective = version.route in self._identity.selective
            hosted = Hosted(version, child, queue=self._settings.queue, selective=selective)
            self._serve(hosted)
            self._spawn(self._watch(hosted))
            self._failures.loaded(version.id)
            self._events.emit("engine.loaded", version=version.id, seconds=time.monotonic() - began)
        finally:
            self._loading = None
            self._wake.set()

    def _not_loaded(self, version: Version, error: ArtefactError | EngineError) -> None:
        wait = self._failures.not_loaded(version.id, self._loader.folder(version), error)
        if wait == math.inf:
            self._reports.refused(version, str(error), hopeless=True)
            self._precedence.given_up(version.id)
            return
        self._reports.refused(version, f"{error} (again in {wait:.0f} s)")
        now = self._wanted.get(version.id)
        if isinstance(error, NoRoom) and now is not None and not list(self._leaving):  # whose room is still to come
            frees = {hosted.version.id: self._loader.frees(hosted.child) for hosted in self.hosts}
            lesser = self._precedence.give_way(now, self._wanted, frees, lacks=error.lacks)
            if lesser is not None:
                self._leaving.begin(self.hosts[lesser], reason=f"{version.id} needs its room")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, hosted: Hosted) -> None:
        self.hosts.add(hosted)
        self._publish[hosted.version.id] = f"{self._identity.url}/versions/{hosted.version.id}/v1"
        self._wake.set()

    def _in_memory(self) -> list[Instance]:
        return [hosted.child for hosted in (*self.hosts, *self._leaving)]

    async def _watch(self, hosted: Hosted) -> None:
        """Take a version out as soon as its process has ended by itself."""
        began = time.monotonic()
        await hosted.child.gone.wait()
        version = hosted.version
        if version.id in self._leaving or version.id not in self.hosts:
            return
        if time.monotonic() - began > self._timing.steady:
            self._failures.forget(version.id)
        wait = self._failures.died(version.id, self._loader.folder(version))
        await self._lost(hosted, f"its process ended ({hosted.child.ending}; again in {wait:.0f} s)")

    def _failed_beside(self, hosted: Hosted, reason: str) -> None:
        """A version no longer answers as it should, as it did before: it is loaded anew, under another name."""
        wait = self._failures.harmed(hosted.version.id, self._loader.folder(hosted.version))
        hopeless = wait == math.inf
        self._spawn(self._lost(hosted, reason if hopeless else f"{reason} (again in {wait:.0f} s)", hopeless=hopeless))

    async def _lost(self, hosted: Hosted, reason: str, *, hopeless: bool = False) -> None:
        """A version answers no more, from now on."""
        self.hosts.remove(hosted)
        self._publish.pop(hosted.version.id, None)
        self._withdraw.add(hosted.version.id)
        self._reports.refused(hosted.version, reason, hopeless=hopeless)
        self._wake.set()
        await hosted.child.close()
        if hopeless:
            self._precedence.given_up(hosted.version.id)
            self._ended(hosted)
        else:
            self._siblings.changed(hosted.child)

    def _ended(self, hosted: Hosted) -> None:
        """A version takes no memory any more."""
        self._siblings.changed(hosted.child)
        for other in self._precedence.left(hosted.version.id):
            self._failures.forget(other)
        self._wake.set()

    async def _take_out(self, hosted: Hosted, reason: str) -> None:
        """Withdraw, and go on answering while gateways may not know of it."""
        version = hosted.version
        self._publish.pop(version.id, None)
        if version.id in self._published:  # or it may be soon: what is under way is done before what is asked for now
            await self._withdrawn(version)
            self._reports.withdrawn(version, reason)
            await asyncio.sleep(self._timing.grace)

    async def _withdrawn(self, version: Version) -> None:
        """Withdraw, also where the registry needs a while; for good it isn't waited for."""
        try:
            async with asyncio.timeout(self._timing.stop):
                while True:
                    try:
                        await self._registry.withdraw(version.id)
                        self._published.discard(version.id)
                        return
                    except RouterError as error:
                        log.warning("engine.registry_failed", extra={"error": str(error)})
                        await asyncio.sleep(self._timing.tick)
        except TimeoutError:
            self._withdraw.add(version.id)

    async def _shut_down(self) -> None:
        await self._siblings.close()
        if self._loading is not None:
            _, task = self._loading
            if not task.cancelling():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for hosted in self.hosts:
            if hosted.version.id not in self._leaving:
                self._leaving.begin(hosted, reason="the engine stops")
        await self._leaving.finish(self._timing.grace + self._timing.stop)
        self._withdraw |= self._published
        with contextlib.suppress(RouterError):
            await self._settle()
