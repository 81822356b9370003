"""LoRA adapters on a running vLLM server. Each load has a new name and a new path: under one that it knows, vLLM goes
on with the old adapter's weights, or with prefixes that were read by them."""

import logging
import re
import shutil
import uuid
from pathlib import Path

from exporters.models import take
from exporters.models.errors import NO_MEMORY
from gateway.engines.errors import DecodeFailed, EngineError, NotReady, Unfit, WorkerGone
from gateway.engines.vllm_server import Server
from gateway.engines.vllm_wire import fault

log = logging.getLogger("retort.engine")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LOAD_SECONDS = 120.0
_REFUSED, _UNKNOWN, _FAILED = 400, 404, 500
_NO_MEMORY = re.compile("|".join((*NO_MEMORY, "No space left", "out of memory")), re.IGNORECASE)


class Adapters:
    """Of one engine. `folder`: for copies of the adapters that are loaded, at the same path for the servers; what an
    earlier process of this engine has left there is removed."""

    def __init__(self, engine: str, folder: Path) -> None:
        self._prefix = f"{engine}."
        self._folder = folder.absolute()
        self._loaded: dict[str, Server] = {}
        self._owed: dict[str, Server] = {}  # whose unloading was refused: it is asked for again
        shutil.rmtree(self._folder, ignore_errors=True)

    async def load(self, server: Server, artefact: Path) -> str:
        """Load an artefact's adapter; returns its name there. Raises NotReady where it is refused, Unfit where it is
        larger than the server takes them, DecodeFailed where the server fails on it and is well otherwise,
        WorkerGone."""
        await self._ask_again(server)
        name = f"{self._prefix}{artefact.name}.{uuid.uuid4().hex[:8]}"
        copy = self._folder / name
        copy.mkdir(parents=True)
        self._loaded[name] = server
        try:
            for file in (CONFIG, WEIGHTS):
                take(artefact / file, copy / file)
            body = {"lora_name": name, "lora_path": str(copy)}
            self._owed[name] = server  # until its word has come: it may load the adapter and not get to say so
            status, said = await server.post("/v1/load_lora_adapter", body, timeout=LOAD_SECONDS)
            del self._owed[name]
            if status >= _REFUSED:
                reason = f"vLLM refuses the adapter (status {status}): {fault(said).message}"
                raise await _refused(server, status, reason)
        except BaseException:
            if name not in self._owed:
                self._forget(name)
            raise
        return name

    async def unload(self, server: Server, name: str) -> None:
        """Nobody uses it any more. Where the server has ended it is gone already; where it refuses, the adapter counts
        as loaded, and its files stay: vLLM may read them again."""
        await self._ask_again(server)
        await self._unload(server, name)

    def on(self, server: Server) -> int:
        """How many are on this server."""
        return sum(other is server for other in (self._loaded | self._owed).values())

    async def clean(self, server: Server) -> None:
        """Unload what an earlier process of this engine has left on a server. Raises WorkerGone."""
        for card in await server.models():
            here = self._loaded.get(card.id)
            used = here is not None and not here.gone.is_set()
            if card.parent is not None and card.id.startswith(self._prefix) and not used:
                await self._unload(server, card.id)

    async def _ask_again(self, server: Server) -> None:
        for name, other in list(self._owed.items()):
            if other.gone.is_set():
                self._forget(name)
            elif other is server and not await self._unload(server, name):
                return  # it would refuse the others as well, or keep the caller waiting for each

    async def _unload(self, server: Server, name: str) -> bool:
        try:
            if not server.gone.is_set():
                status, said = await server.post("/v1/unload_lora_adapter", {"lora_name": name}, timeout=LOAD_SECONDS)
                if status >= _REFUSED and status != _UNKNOWN:
                    raise WorkerGone(f"status {status}: {fault(said).message}")
        except WorkerGone as error:
            if not server.gone.is_set():
                log.warning("engine.adapter_stays", extra={"adapter": name, "url": server.url, "reason": str(error)})
                self._owed[name] = server
                return False
        self._forget(name)
        return True

    def _forget(self, name: str) -> None:
        self._owed.pop(name, None)
        if self._loaded.pop(name, None) is not None:  # others are the server's word: no folder is touched by that
            shutil.rmtree(self._folder / name, ignore_errors=True)


async def _refused(server: Server, status: int, reason: str) -> EngineError:
    """vLLM answers 500 to whatever it finds wrong with an adapter."""
    if status == _REFUSED:
        return NotReady(reason)
    if status != _FAILED or _NO_MEMORY.search(reason) or not await server.well():
        return WorkerGone(reason)
    return Unfit(f"{reason} (--max-lora-rank of vllm.arguments)") if "max_lora_rank" in reason else DecodeFailed(reason)
