"""A faulty network element, put in front of the engine: it passes requests on, or spoils the answers of one version.

The engine itself has no switch for this; what the demo breaks, it breaks from outside.
"""

import json
from enum import StrEnum

import aiohttp
from aiohttp import web

from retort.sample.records import COMMUNITIES

_DROPPED = frozenset({"transfer-encoding", "content-length", "connection", "content-encoding", "date", "server"})


class Fault(StrEnum):
    """What happens to a version's answers: `wrong` names another community, `failing` answers 500."""

    NONE = "none"
    WRONG = "wrong"
    FAILING = "failing"


class FaultyProxy:
    """Forwards to `target` (http://host:port). `faults` may be changed at any time, by version id."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._client: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.faults: dict[str, Fault] = {}

    async def start(self, port: int) -> None:
        """Listen on 127.0.0.1."""
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120))
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()
        if self._client:
            await self._client.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the proxy is not started")
        return self._client

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        version = request.path.split("/")[2] if request.path.startswith("/versions/") else ""
        fault = self.faults.get(version, Fault.NONE)
        if fault is Fault.FAILING:
            return web.json_response({"error": {"message": "out of order", "type": "server_error"}}, status=500)
        try:
            return await self._pass_on(request, fault)
        except aiohttp.ClientError:
            # The engine is gone: its client sees what it would see without a proxy, a connection that ends.
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)

    async def _pass_on(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {*_DROPPED, "host"}}
        body = await request.read()
        async with self._session().request(
            request.method, self._target + request.path_qs, data=body, headers=headers
        ) as got:
            kept = {k: v for k, v in got.headers.items() if k.lower() not in _DROPPED}
            if fault is Fault.WRONG and got.status == 200:
                return web.Response(body=spoil(await got.read()), headers=kept)
            response = web.StreamResponse(status=got.status, headers=kept)
            await response.prepare(request)
            async for chunk in got.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def spoil(body: bytes) -> bytes:
    """A plain chat completion whose answer names the next community in the list; well formed, and wrong."""
    data = json.loads(body)
    message = data["choices"][0]["message"]
    try:
        said = json.loads(message["content"])["community"]
        wrong = COMMUNITIES[(COMMUNITIES.index(said) + 1) % len(COMMUNITIES)]
    except (ValueError, KeyError, TypeError):
        wrong = "none"
    message["content"] = json.dumps({"community": wrong})
    return json.dumps(data).encode()
