"""A version becomes one that may be served: its files are verified, there is room for it, it is loaded, and it answers
as it should."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from signal import SIGFPE, SIGILL, SIGSEGV
from typing import Protocol
from weakref import WeakKeyDictionary

from exporters.models import ArtefactError, Manifest, Store
from exporters.models.tool_text import FORM
from gateway.engines.errors import DecodeFailed, Unfit, WorkerGone
from gateway.engines.instance import Instance
from gateway.engines.memory import check, resident
from gateway.engines.probe import probe
from router.registry import Version

END_SECONDS = 2.0
# Of a process of ours, by what it was given: it ended by itself, or by a signal that its own code has raised. Any other
# end may be the machine's, or that of a server that is not ours.
_CRASHED = re.compile(rf"signal ({SIGILL:d}|{SIGFPE:d}|{SIGSEGV:d})$|status (?!0\b|137\b|143\b)")


class Starter(Protocol):
    """What loads the artefact in a folder, by the runtime that its manifest names."""

    async def start(self, folder: Path, manifest: Manifest) -> Instance:
        """Raises NotReady, Unfit, NoRoom, WorkerGone."""

    async def needs(self, folder: Path, manifest: Manifest) -> float:
        """Bytes that it will take, beside what runs already. Raises WorkerGone, ArtefactError."""

    def pids(self) -> Iterable[int | None]:
        """Of processes that are there whether or not a version is served by them now."""


class Loader:
    """`memory_gb`: what all that is loaded may take; None asks nobody. `seconds`: that the probes may take."""

    def __init__(self, store: Store, starter: Starter, *, memory_gb: float | None, seconds: float) -> None:
        self._store = store
        self._starter = starter
        self._memory_gb = memory_gb
        self._seconds = seconds
        self._needs: dict[int, float] = {}  # by process
        self._manifests: WeakKeyDictionary[Instance, Manifest] = WeakKeyDictionary()

    def folder(self, version: Version) -> Path:
        """Of its artefact."""
        return self._store.path(version.artefact)

    async def load(
        self, version: Version, loaded: Callable[[], Iterable[Instance]], changed: Callable[[Instance], None]
    ) -> Instance:
        """`loaded()`: what is in memory now. `changed(child)` is called when it has been loaded, and when it goes
        because it doesn't answer as it should. Raises ArtefactError, EngineError: NotReady, Unfit, NoRoom, WorkerGone,
        and DecodeFailed where it fails on a probe, crashes there, or gives no answer."""
        if version.tools not in (None, FORM):
            raise Unfit(f"{version.id} calls tools in the form {version.tools!r}; this engine knows {FORM!r}")
        folder = self.folder(version)
        if folder.exists():
            with suppress(ArtefactError, Unfit):  # which is told below, once it has been read
                await self._room(folder, await asyncio.to_thread(self._store.manifest, version.artefact), loaded)
        manifest = await self._verified(version.artefact)
        needed = await self._room(folder, manifest, loaded)
        child = await self._starter.start(folder, manifest)
        if child.pid is not None:
            self._needs[child.pid] = max(needed, self._needs.get(child.pid, 0.0))
        self._manifests[child] = manifest
        changed(child)
        await self._prove(child, loaded, changed)
        return child

    async def _prove(
        self, child: Instance, loaded: Callable[[], Iterable[Instance]], changed: Callable[[Instance], None]
    ) -> None:
        """Probe it; it is ended where it doesn't answer as it should."""
        alone = not any(other.place is child.place for other in loaded())
        try:
            await self.again(child)
        except BaseException as error:
            if isinstance(error, TimeoutError) and alone:
                child.kill()  # a server that serves others may be busy with them; where it hangs, that is seen there
            try:
                if isinstance(error, WorkerGone):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(child.gone.wait(), END_SECONDS)  # its last word comes before its end
                ending = child.ending if child.gone.is_set() else str(error)
            finally:
                await child.close()
                changed(child)
            if isinstance(error, TimeoutError):
                said = f"the probes took longer than {self._seconds:.0f} s"
                raise (DecodeFailed if alone else WorkerGone)(said) from None
            if isinstance(error, WorkerGone):
                crashed = alone and _CRASHED.match(ending) and "memory" not in ending.lower()
                raise (DecodeFailed if crashed else WorkerGone)(f"it was probed, and {ending}") from None
            raise

    async def _verified(self, artefact: str) -> Manifest:
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(self._store.verify, artefact, given_up.is_set)
        except asyncio.CancelledError:
            given_up.set()  # or a fetch would go on, and have the next load wait for it
            raise

    async def _room(self, folder: Path, manifest: Manifest, loaded: Callable[[], Iterable[Instance]]) -> float:
        """Bytes that it needs, and there are. Raises NoRoom, Unfit, WorkerGone, ArtefactError."""
        if self._memory_gb is None:
            return 0.0
        needed = await self._starter.needs(folder, manifest)
        held = self._held({*(child.pid for child in loaded()), *self._starter.pids()})
        check(manifest.id, held, needed=needed, most_gb=self._memory_gb)
        return needed

    def frees(self, child: Instance) -> float:
        """Bytes that are free once it has ended; none where its process outlives it."""
        return 0.0 if child.pid in self._starter.pids() else self._takes(child.pid)

    def _held(self, pids: set[int | None]) -> float:
        self._needs = {pid: needed for pid, needed in self._needs.items() if pid in pids}
        return sum(map(self._takes, pids))

    def _takes(self, pid: int | None) -> float:
        """Bytes of a process: what it takes, or what it was said to need, as it will once it is busy."""
        return max(resident(pid), self._needs.get(pid, 0.0)) if pid is not None else 0.0

    async def again(self, child: Instance) -> None:
        """Probe what has been loaded. Raises EngineError, TimeoutError."""
        async with asyncio.timeout(self._seconds):
            await probe(child, self._manifests[child])
