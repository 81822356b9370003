"""Instances that nobody has to load, a loader of them, and what reconciles both with a registry."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gateway.engines.errors import NoRoom
from gateway.engines.instance import Instance
from gateway.engines.reconcile import Identity, Reconciler
from gateway.engines.registry_thread import RegistryThread
from gateway.engines.timing import Timing
from router import Events, RouteEvent, Version
from router.config_engines import EngineSettings


class IdleInstance:
    """One that was never asked for anything, in a place of its own."""

    ending, silent = "it ended", 0.0

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.place: object = self
        self.pid: int | None = None
        self.stay = 0.0  # seconds that its end takes

    def kill(self) -> None:
        self.gone.set()

    async def close(self) -> None:
        await asyncio.sleep(self.stay)
        self.gone.set()


class Loads:
    """A loader with room for `most` versions; loads of `slow` ones never end, those of `failing` ones raise."""

    def __init__(self) -> None:
        self.most, self.lacks, self.each = 9, 0.0, 1e9  # bytes: of who finds no room, and of a loaded version
        self.slow: set[str] = set()
        self.failing: dict[str, Exception] = {}
        self.began: list[str] = []
        self.given_up: list[str] = []
        self.instances: dict[str, IdleInstance] = {}  # the last of each version

    def frees(self, child: Instance) -> float:
        return self.each

    def folder(self, version: Version) -> Path:
        return Path("/nowhere") / version.artefact

    async def load(
        self, version: Version, loaded: Callable[[], Iterable[Instance]], changed: Callable[[Instance], None]
    ) -> IdleInstance:
        self.began.append(version.id)
        if version.id in self.failing:
            raise self.failing[version.id]
        if version.id in self.slow:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)  # a server takes a while to end
                self.given_up.append(version.id)
                raise
        if len(list(loaded())) >= self.most:
            error = NoRoom("there is none")
            error.lacks = self.lacks
            raise error
        self.instances[version.id] = IdleInstance()
        return self.instances[version.id]

    async def again(self, child: Instance) -> None:
        raise AssertionError


def reconciler(
    registry: Any, loads: Loads, timing: Timing, *, told: list[RouteEvent]
) -> tuple[Reconciler, RegistryThread]:
    """Of the engine `local`; `told`: where its events go. Whoever asks closes the thread."""
    thread = RegistryThread(lambda: registry)
    made = Reconciler(
        EngineSettings(),
        Identity("local", "http://127.0.0.1:1"),
        loader=loads,  # type: ignore[arg-type]
        registry=thread,
        send=lambda event: told.append(event) is None,
        events=Events(),
        timing=timing,
    )
    return made, thread
