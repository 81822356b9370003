"""Servers that run already, at `vllm.urls`: which of them is asked next."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from gateway.engines.errors import WorkerGone
from gateway.engines.vllm_server import Server

# A server that answers /health and nothing else looks well whenever it is found. Without an end to the suspicion one
# that was mended would get no adapters for as long as another is there.
SUSPECT_SECONDS = 600.0


class Found:
    """Iterates over the urls: those that never failed, then those that did, the longest ago first."""

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = dict.fromkeys(urls, -math.inf)

    def __bool__(self) -> bool:
        return bool(self._failed)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._failed, key=lambda url: self._failed[url]))

    def failed(self, url: str) -> None:
        """It could not be asked, gave no answer, or one that can't be."""
        self._failed[url] = self._clock()

    def suspect(self, url: str) -> float:
        """When it failed, in seconds of the clock; minus infinity where it didn't within SUSPECT_SECONDS."""
        at = self._failed.get(url, -math.inf)
        return at if self._clock() - at < SUSPECT_SECONDS else -math.inf

    async def find(self, url: str) -> Server:
        """The server there. Raises WorkerGone."""
        try:
            return await Server.find(url, failed=partial(self.failed, url))
        except WorkerGone:
            self.failed(url)
            raise

    async def serving(self, name: str) -> Server:
        """The first that serves a model of this name. Raises WorkerGone."""
        wrong = []
        for url in self:
            try:
                server = await self.find(url)
            except WorkerGone as error:
                wrong.append(str(error))
                continue
            try:
                if any(card.id == name for card in await server.models()):
                    return server
                wrong.append(f"{url} serves other models")
            except WorkerGone as error:
                server.failed()
                wrong.append(str(error))
            await server.close()
        raise WorkerGone(f"no server of vllm.urls serves {name} (--served-model-name {name}): {'; '.join(wrong)}")
