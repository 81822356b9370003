"""What the demo sees of a running Retort: the registry, the training cycle, and a record of both over time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from retort.demo.settings import ROUTE
from retrainer import Cycles, CycleState
from router import Config, Registry, Stage, Version, open_registry

POLL_SECONDS = 0.25


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. `requests`: sent so far. `tests`, `alarms`: "VERSION NAME" -> (log e-value, log boundary)."""

    at: float
    requests: int
    live: str | None
    challenger: str | None
    fraction: float
    step: int
    tests: dict[str, tuple[float, float]]
    alarms: dict[str, tuple[float, float]]


class Watch:
    """Reads the registry and the cycles of a state folder, as any process of this machine may."""

    def __init__(self, config: Config, requests: Callable[[], int]) -> None:
        self.registry: Registry = open_registry(config.registry)
        self.cycles = Cycles(config.state)
        self.moments: list[Moment] = []
        self._requests = requests

    def stage(self, version: str) -> Stage | None:
        """A version's stage, None before it is registered."""
        return next((v.stage for v in self.versions() if v.id == version), None)

    def versions(self) -> list[Version]:
        """The route's versions, oldest first."""
        return list(self.registry.versions(ROUTE))

    def ready(self, version: str) -> bool:
        """Whether an engine serves the version."""
        return version in self.registry.snapshot().endpoints

    def endpoint(self, version: str) -> str:
        """The base_url of a ready version's engine."""
        return self.registry.snapshot().endpoints[version]

    def cycle(self) -> CycleState | None:
        """The latest cycle."""
        found = self.cycles.of(ROUTE)
        return found[-1] if found else None

    def look(self) -> Moment | None:
        """The rollout now; None before the promoter's first commit."""
        status = dict(self.registry.status(ROUTE))
        if not status:
            return None
        return Moment(
            at=time.time(),
            requests=self._requests(),
            live=status["live"],
            challenger=status["challenger"],
            fraction=status["fraction"],
            step=status["step"],
            tests=_rows(status, "tests"),
            alarms=_rows(status, "alarms"),
        )

    async def record(self) -> None:
        """Keep a reading every quarter of a second, until cancelled."""
        while True:
            moment = self.look()
            if moment is not None:
                self.moments.append(moment)
            await asyncio.sleep(POLL_SECONDS)


def _rows(status: dict[str, Any], group: str) -> dict[str, tuple[float, float]]:
    return {
        f"{version} {name}": (row["log_e"], row["log_boundary"])
        for version, evidence in status["evidence"].items()
        for name, row in evidence.get(group, {}).items()
    }
