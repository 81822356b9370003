"""The seam to upstreams: one POST, its answer whole or in pieces. aiohttp behind it, for its cost per request."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from gateway.errors import ConnectFailed, Cut, UpstreamError, UpstreamTimeout

# A kept-alive connection that the other side has just closed shows at once; later ends are failures of the request.
STALE_SECONDS = 1.0
KEEPALIVE_SECONDS = 15.0
# aiohttp writes a body given as bytes in one go; above this the event loop gets a breath between pieces.
PIECE_BYTES = 256 << 10
MOST_PREPARED = 1000


class Target(msgspec.Struct, frozen=True):
    """Where to send, and the seconds that a connection may take."""

    url: str
    connect_timeout: float


class Patience(msgspec.Struct, frozen=True):
    """How long to wait, in seconds: for the `whole` answer, or (for a stream) for each of its bytes after the last."""

    whole: float | None = None
    idle: float | None = None


class Reply(Protocol):
    """An answer whose headers have arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in the upstream's own case, look-ups in any."""

    async def read(self) -> bytes:
        """The whole body, decoded. Raises UpstreamError."""

    async def chunk(self) -> bytes:
        """What has arrived of the body, at least a byte; b"" at its end. Raises UpstreamError."""

    def close(self) -> None:
        """Let go; an answer that is not over is cut off, so that the upstream stops its work."""


class Upstream(Protocol):
    """Sends requests."""

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes, *, patience: Patience) -> Reply:
        """Send a body and wait for the answer's headers. Raises UpstreamError. Cancelling it cancels the request."""

    async def close(self) -> None:
        """Close all connections."""


class AiohttpUpstream:
    """Upstream over one aiohttp session. Make it inside the running loop; close it after its last user."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        self._known: dict[tuple[Target, Patience], tuple[URL, aiohttp.ClientTimeout]] = {}

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes, *, patience: Patience) -> Reply:
        """See Upstream. A kept-alive connection that turns out to be closed is replaced once: no byte has come yet."""
        began = time.monotonic()
        try:
            return await self._post(target, headers, body, patience)
        except aiohttp.ServerDisconnectedError as error:
            if time.monotonic() - began > STALE_SECONDS:
                raise _translated(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error
        try:
            return await self._post(target, headers, body, patience)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error

    async def _post(
        self, target: Target, headers: Mapping[str, str], body: bytes, patience: Patience
    ) -> "_AiohttpReply":
        url, timeout = self._known.get((target, patience)) or self._prepare(target, patience)
        data: bytes | AsyncIterator[bytes] = body
        if len(body) > PIECE_BYTES:
            data = _pieces(body)
            headers = {**headers, "content-length": str(len(body))}
        response = await self._session.post(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
        return _AiohttpReply(response)

    def _prepare(self, target: Target, patience: Patience) -> tuple[URL, aiohttp.ClientTimeout]:
        if len(self._known) >= MOST_PREPARED:
            self._known.clear()  # versions come and go
        timeout = aiohttp.ClientTimeout(
            total=patience.whole, sock_connect=target.connect_timeout, sock_read=patience.idle
        )
        prepared = self._known[target, patience] = (URL(target.url), timeout)
        return prepared

    async def close(self) -> None:
        """See Upstream."""
        await self._session.close()


class _AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error

    async def chunk(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        self._response.close()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for at in range(0, len(body), PIECE_BYTES):
        yield bytes(view[at : at + PIECE_BYTES])
        await asyncio.sleep(0)


def _translated(error: Exception) -> UpstreamError:
    """Foreign errors as ours. Their texts name addresses, so they stay in the cause."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectFailed("No connection to the upstream could be made in time.")
    if isinstance(error, TimeoutError):
        return UpstreamTimeout()
    if isinstance(error, (aiohttp.ClientConnectorError, ssl.SSLError)):
        return ConnectFailed()
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        return ConnectFailed("The upstream closed the connection before it answered.")
    return Cut()
