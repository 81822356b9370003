"""Versions are started by the runtime of their manifests: in a worker process of ours, or by a server of vLLM's."""

from collections.abc import Iterable
from pathlib import Path

from exporters.models import VLLM, Manifest
from gateway.engines import memory
from gateway.engines.child import Child
from gateway.engines.instance import Instance
from gateway.engines.vllm_fleet import Fleet
from router.config_engines import EngineSettings

THREADS = 2  # of a worker of ours


class Runtimes:
    """Of the engine `name`: the Starter of its versions. `seconds`: that a start may take."""

    def __init__(self, name: str, settings: EngineSettings, state: Path, *, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._fleet = Fleet(name, settings, state) if settings.runtime == "vllm" else None

    async def start(self, folder: Path, manifest: Manifest) -> Instance:
        """See Starter."""
        if self._fleet is not None and manifest.runtime == VLLM:
            return await self._fleet.start(folder, manifest, timeout=self._seconds)
        return await Child.start(
            folder,
            runtime=manifest.runtime,
            threads=self._settings.threads or THREADS,
            cache_gb=self._settings.kv_cache_gb,
            timeout=self._seconds,
        )

    async def needs(self, folder: Path, manifest: Manifest) -> float:
        """See Starter."""
        if self._fleet is not None and manifest.runtime == VLLM:
            return await self._fleet.needs(folder, manifest)
        return memory.needs(folder, manifest, cache_gb=self._settings.kv_cache_gb)

    def pids(self) -> Iterable[int | None]:
        """See Starter."""
        return self._fleet.pids() if self._fleet is not None else ()

    async def close(self) -> None:
        """End what outlives the versions."""
        if self._fleet is not None:
            await self._fleet.close()
