"""What has been taken out has no endpoint, whatever was under way; a registry is played that is slow, or fails."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from engine_fakes import FakeRegistry, until, version
from idle_instance import Loads, reconciler

from gateway.engines.timing import Timing
from router.errors import RegistryUnavailable

TIMING = Timing(tick=0.02, grace=0.02, drain=5.0, stop=2.0, first_backoff=60.0)


class SlowRegistry(FakeRegistry):
    """A publication waits for `go`. `forgets`: it is written, and its word doesn't arrive. `refuses`: nothing is
    written. `begun`, `refused`: publications that began, and withdrawals that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.forgets = self.refuses = False
        self.begun = self.refused = 0

    def publish(self, version_id: str, *, engine: str, url: str) -> None:
        self.begun += 1
        assert self.go.wait(30)
        if self.refuses:
            raise RegistryUnavailable
        super().publish(version_id, engine=engine, url=url)
        if self.forgets:
            raise RegistryUnavailable

    def withdraw(self, version_id: str) -> None:
        if self.refuses:
            self.refused += 1
            raise RegistryUnavailable
        super().withdraw(version_id)


class Running(msgspec.Struct):
    registry: SlowRegistry
    loads: Loads
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def published(self) -> None:
        self.registry.go.set()
        await until(lambda: "v1" in self.registry.endpoints)

    async def ended(self) -> None:
        """Stopped, with nothing left in the registry."""
        self.stop.set()
        with suppress(asyncio.CancelledError):
            await self.task
        assert not self.registry.endpoints
        assert self.loads.instances["v1"].gone.is_set()


@asynccontextmanager
async def reconciling() -> AsyncIterator[Running]:
    """With `v1` wanted."""
    registry, loads, stop = SlowRegistry(), Loads(), asyncio.Event()
    registry.set(version("v1"))
    made, thread = reconciler(registry, loads, TIMING, told=[])
    task = asyncio.create_task(made.run(stop))
    try:
        yield Running(registry, loads, stop, task)
    finally:
        registry.go.set()
        registry.refuses = False
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        await thread.close()


async def test_what_dies_while_it_is_published_has_no_endpoint_in_the_end() -> None:
    async with reconciling() as running:
        await until(lambda: running.registry.begun == 1)
        running.loads.instances["v1"].gone.set()
        await asyncio.sleep(0.05)
        running.registry.go.set()
        await until(lambda: ("withdraw", "v1") in running.registry.history)
        assert not running.registry.endpoints
        await running.ended()


@pytest.mark.parametrize("forgets", [False, True])
async def test_an_engine_that_is_ended_while_it_publishes_leaves_no_endpoint(forgets: bool) -> None:
    async with reconciling() as running:
        running.registry.forgets = forgets
        await until(lambda: running.registry.begun == 1)
        running.task.cancel()
        await asyncio.sleep(0.05)
        running.registry.go.set()
        await running.ended()
        assert running.registry.history[0] == ("publish", "v1")


async def test_a_publication_whose_success_was_never_told_is_withdrawn_all_the_same() -> None:
    async with reconciling() as running:
        running.registry.forgets = True
        await running.published()
        await until(lambda: running.registry.begun > 1)
        await running.ended()


async def test_what_is_wanted_again_before_it_was_withdrawn_and_then_taken_out_has_no_endpoint() -> None:
    async with reconciling() as running:
        registry = running.registry
        await running.published()
        registry.refuses = True
        registry.set()  # it is to be withdrawn, which fails
        await until(lambda: registry.refused > 0)
        before = registry.begun
        registry.set(version("v1"))
        await until(lambda: registry.begun > before)  # it serves on, and is published anew, which fails
        assert running.loads.began == ["v1"]
        running.stop.set()
        await asyncio.sleep(0.05)
        registry.refuses = False
        await running.ended()
