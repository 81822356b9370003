"""A request's body, up to what an engine takes."""

from aiohttp import web

from gateway.engines.errors import TooLarge

MAX_BODY = 16 << 20


async def read(request: web.Request) -> bytes:
    """All of it. Raises TooLarge."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"The body is above {MAX_BODY >> 20} MiB.") from None
