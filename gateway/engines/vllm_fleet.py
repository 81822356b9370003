"""The vLLM servers of one engine. Two ways to a version: a whole model has a server of its own, beside the one that it
will replace; a LoRA adapter is loaded into the server of its base. Servers are launched, or found at urls."""

import logging
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from exporters.models import Confidence, Manifest
from exporters.models.processors import processors
from exporters.models.vocabulary import Vocabulary
from gateway.engines import vllm_dense, vllm_environment, vllm_log, vllm_memory
from gateway.engines.errors import DecodeFailed, NotReady, Unfit, WorkerGone
from gateway.engines.vllm_adapters import CONFIG, WEIGHTS, Adapters
from gateway.engines.vllm_child import Model, VllmChild
from gateway.engines.vllm_command import Served, command, environ
from gateway.engines.vllm_environment import Environment
from gateway.engines.vllm_found import Found
from gateway.engines.vllm_server import Server, free_port
from router.config_engines import EngineSettings

log = logging.getLogger("retort.engine")

FOUR_BITS = ("awq", "gptq")
_TOKENIZER = "tokenizer.json"


class Fleet:
    """Of the engine `name`. `state`: a folder for logs and what is made for this machine. `ask`, `dense`: see
    vllm_environment, vllm_dense."""

    def __init__(
        self,
        name: str,
        settings: EngineSettings,
        state: Path,
        *,
        ask: Callable[[str], Awaitable[Environment]] = vllm_environment.ask,
        dense: Callable[[Path, Path], Awaitable[Path]] = vllm_dense.dense,
    ) -> None:
        self._name = name
        self._settings = settings
        self._state = state / "vllm" / name
        self._ask, self._dense = ask, dense
        self._adapters = Adapters(name, self._state / "adapters")
        self._found = Found(settings.vllm.urls)
        self._known: Environment | None = None
        self._bases: dict[str, Server] = {}  # by url; "" for the one that is launched

    async def start(self, folder: Path, manifest: Manifest, *, timeout: float) -> VllmChild:
        """Have a server answer for the artefact in `folder`. One load at a time. Raises NotReady, Unfit, WorkerGone
        (also where it takes longer than `timeout` seconds)."""
        if (folder / CONFIG).is_file():
            return await self._adapter(folder, manifest, timeout)
        return await self._whole(folder, manifest, timeout)

    async def needs(self, folder: Path, manifest: Manifest) -> float:
        """Bytes of this machine's memory that the artefact in `folder` will take beside the processes of `pids` and of
        its own kind. Raises WorkerGone, CorruptArtefact."""
        if self._found:
            return 0.0  # they run wherever they run, and hold their memory already
        base, own = self._settings.vllm.adapters_on, folder / WEIGHTS
        if not (folder / CONFIG).is_file():
            return vllm_memory.server(folder, self._settings, await self._environment())
        needed = float(own.stat().st_size if own.is_file() else 0)
        if base is not None and all(server.gone.is_set() for server in self._bases.values()):
            needed += vllm_memory.server(Path(base), self._settings, await self._environment())
        return needed

    def pids(self) -> list[int | None]:
        """Of the servers of bases, which outlive their adapters."""
        return [server.pid for server in self._bases.values()]

    async def close(self) -> None:
        """End the servers of bases, which outlive their adapters."""
        for server in self._bases.values():
            await server.close()
        self._bases.clear()

    async def _whole(self, folder: Path, manifest: Manifest, timeout: float) -> VllmChild:
        if self._settings.vllm.adapters_on is not None:
            raise Unfit(f"{manifest.id} is a whole model; this engine has vllm.adapters_on, and serves adapters")
        for file in ("config.json", _TOKENIZER):
            if not (folder / file).is_file():
                raise NotReady(f"{folder} holds no {file}: it is no Hugging Face model folder")
        if self._found:
            return await self._child(await self._found.serving(manifest.id), folder, manifest.id, folder)
        model = folder
        environment = await self._environment()
        if manifest.quantization in FOUR_BITS and not environment.four_bits:
            log.warning(
                "engine.four_bits_unsupported",
                extra={
                    "version": manifest.id,
                    "reason": "vLLM has no kernels for 4 bits on this CPU (they need AVX-512) or GPU; "
                    "the same weights are served dense, or export the route for runtime: onnxruntime",
                },
            )
            model = await self._dense(folder, self._state / "dense")
        vllm_log.forget(self._state, folder.parent)
        server = await self._launch(Served(model=model, name=manifest.id, adapters=False), folder.name, timeout)
        return await self._child(server, folder, manifest.id, folder, end=server.close)

    async def _adapter(self, folder: Path, manifest: Manifest, timeout: float) -> VllmChild:
        base = self._settings.vllm.adapters_on
        if base is None:
            raise Unfit(f"{manifest.id} is a LoRA adapter; set vllm.adapters_on of this engine, or merge it")
        if not (folder / WEIGHTS).is_file():
            raise NotReady(f"{folder} holds {CONFIG} without {WEIGHTS}")
        tokenizer = next((place for place in (folder, Path(base)) if (place / _TOKENIZER).is_file()), None)
        if tokenizer is None:
            raise Unfit(f"neither {folder} nor {base} holds a {_TOKENIZER}")
        server = await self._base(base, timeout)
        try:
            name = await self._adapters.load(server, folder)
        except (WorkerGone, DecodeFailed):
            server.failed()  # another may take it
            raise
        return await self._child(server, folder, name, tokenizer, end=lambda: self._adapters.unload(server, name))

    async def _child(
        self,
        server: Server,
        folder: Path,
        name: str,
        tokenizer: Path,
        *,
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> VllmChild:
        """`end`: what ends it; of a server that was found and serves it alone, letting go of it."""
        end = end or server.close
        try:
            cards = {card.id: card for card in await server.models()}
            if name not in cards:
                raise WorkerGone(f"the server at {server.url} does not serve {name}")
            lengths = [card.max_model_len for card in cards.values() if card.max_model_len is not None]
            model = Model(
                name=name,
                vocabulary=_vocabulary(tokenizer),
                confidence=Confidence.load(folder),
                context_length=cards[name].max_model_len or max(lengths, default=None),
            )
        except BaseException as error:
            if isinstance(error, WorkerGone):
                server.failed()
            await end()
            raise
        return VllmChild(server, model, end)

    async def _base(self, base: str, timeout: float) -> Server:
        """A running server of the base: the launched one, or of those that were found the one with the fewest of our
        adapters; one that has failed lately only where all have."""
        for url, server in list(self._bases.items()):
            if server.gone.is_set():
                del self._bases[url]
                await server.close()
        if not self._found:
            if "" not in self._bases:
                served = Served(model=Path(base), name=f"{self._name}-base", adapters=True)
                self._bases[""] = await self._launch(served, vllm_log.BASE, timeout)
            return self._bases[""]
        wrong = []
        for url in self._found:
            best = min(map(self._found.suspect, self._bases), default=math.inf)
            if url in self._bases or self._found.suspect(url) > best:
                continue
            try:
                self._bases[url] = await self._clean(url)
            except WorkerGone as error:
                wrong.append(str(error))
        if not self._bases:
            raise WorkerGone("; ".join(wrong))
        return min(
            self._bases.values(), key=lambda server: (self._found.suspect(server.url), self._adapters.on(server))
        )

    async def _clean(self, url: str) -> Server:
        """The server found there, with no adapters of ours. Raises WorkerGone."""
        server = await self._found.find(url)
        try:
            await self._adapters.clean(server)
        except WorkerGone:
            server.failed()
            await server.close()
            raise
        return server

    async def _launch(self, served: Served, file: str, timeout: float) -> Server:
        environment, port = await self._environment(), free_port()
        return await Server.launch(
            self._settings.vllm.python,
            command(served, self._settings, environment, port),
            environ(os.environ, served, self._settings, environment, cores=processors()),
            port=port,
            log=self._state / f"{file}.log",
            timeout=timeout,
        )

    async def _environment(self) -> Environment:
        if self._known is None:
            self._known = await self._ask(self._settings.vllm.python)
        return self._known


def _vocabulary(folder: Path) -> Vocabulary:
    """Raises NotReady where the tokens' bytes can't be told: a character may span tokens."""
    try:
        found = Vocabulary.load(folder, lambda _: "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotReady(f"{folder}/{_TOKENIZER} can't be read: {error}") from error
    if not found.exact:
        raise NotReady(
            f"{folder}/{_TOKENIZER} is neither a byte-level BPE nor SentencePiece's; this engine reads no other"
        )
    return found
