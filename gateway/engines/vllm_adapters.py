"""LoRA adapters on a running vLLM server. Each load has a new name and a new path: under one that it knows, vLLM goes
on with the old adapter's weights, or with prefixes that were read by them."""

import shutil
import uuid
from pathlib import Path

from exporters.models import take
from gateway.engines.errors import NotReady, WorkerGone
from gateway.engines.vllm_server import Server
from gateway.engines.vllm_wire import fault

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LOAD_SECONDS = 120.0
_REFUSED = 400


class Adapters:
    """Of one engine. `folder`: for copies of the adapters that are loaded, at the same path for the servers; what an
    earlier process of this engine has left there is removed."""

    def __init__(self, engine: str, folder: Path) -> None:
        self._prefix = f"{engine}."
        self._folder = folder.absolute()
        self._loaded: dict[str, Server] = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    async def load(self, server: Server, artefact: Path) -> str:
        """Load an artefact's adapter; returns its name there. Raises NotReady where it is refused, WorkerGone."""
        name = f"{self._prefix}{artefact.name}.{uuid.uuid4().hex[:8]}"
        copy = self._folder / name
        copy.mkdir(parents=True)
        self._loaded[name] = server
        try:
            for file in (CONFIG, WEIGHTS):
                take(artefact / file, copy / file)
            body = {"lora_name": name, "lora_path": str(copy)}
            status, said = await server.post("/v1/load_lora_adapter", body, timeout=LOAD_SECONDS)
            if status >= _REFUSED:
                reason = f"vLLM refuses the adapter (status {status}): {fault(said).message}"
                raise NotReady(reason) if status == _REFUSED else WorkerGone(reason)
        except BaseException:
            self._forget(name)
            raise
        return name

    async def unload(self, server: Server, name: str) -> None:
        """Nobody uses it any more. Where the server has ended it is gone already."""
        try:
            if not server.gone.is_set():
                await server.post("/v1/unload_lora_adapter", {"lora_name": name}, timeout=LOAD_SECONDS)
        except WorkerGone:
            pass
        finally:
            self._forget(name)

    def on(self, server: Server) -> int:
        """How many are on this server."""
        return sum(other is server for other in self._loaded.values())

    async def clean(self, server: Server) -> None:
        """Unload what an earlier process of this engine has left on a server. Raises WorkerGone."""
        for card in await server.models():
            if card.parent is not None and card.id.startswith(self._prefix) and card.id not in self._loaded:
                # The name is the server's word: no folder is touched by it.
                await server.post("/v1/unload_lora_adapter", {"lora_name": card.id}, timeout=LOAD_SECONDS)

    def _forget(self, name: str) -> None:
        self._loaded.pop(name, None)
        shutil.rmtree(self._folder / name, ignore_errors=True)
