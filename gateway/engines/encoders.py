"""The engine's HTTP side of encoders: embeddings, and reranking."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.engines import bodies, embeddings, rerank
from gateway.engines.hosting import Hosted, Hosts
from gateway.engines.measured import Measured
from router.events import Events

_JSON = "application/json"


class Encoders:
    """Handlers."""

    def __init__(self, hosts: Hosts, events: Events) -> None:
        self._hosts, self._events = hosts, events

    async def embed(self, request: web.Request) -> web.Response:
        """POST /versions/{id}/v1/embeddings."""
        async with self._admitted(request, does="embed", operation="embeddings") as (hosted, measured):
            child = hosted.encoder("embed")
            asked = embeddings.read(await bodies.read(request), dimensions=child.loaded.dimensions)
            found = await child.embed(asked.texts, truncate=asked.truncate)
            measured.note(found)
            answered = embeddings.answer(asked, found, child.loaded, model=hosted.version.id)
            measured.outcome = "ok"
            return web.Response(body=answered, content_type=_JSON)

    async def rank(self, request: web.Request) -> web.Response:
        """POST /versions/{id}/v1/rerank."""
        async with self._admitted(request, does="rank", operation="rerank") as (hosted, measured):
            asked = rerank.read(await bodies.read(request))
            found = await hosted.encoder("rank").rank(asked.query, asked.documents, truncate=asked.truncate)
            measured.note(found)
            measured.outcome = "ok"
            return web.Response(body=rerank.answer(asked, found, model=hosted.version.id), content_type=_JSON)

    @asynccontextmanager
    async def _admitted(
        self, request: web.Request, *, does: str, operation: str
    ) -> AsyncIterator[tuple[Hosted, Measured]]:
        hosted = self._hosts[request.match_info["version"]]
        measured = Measured(hosted, self._events, operation=operation)
        with measured.counted(does):
            yield hosted, measured
