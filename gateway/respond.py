"""Answers of the gateway's own."""

from gateway.body import Send
from gateway.errors import GatewayError, openai_body, status_of
from gateway.headers import Pairs


async def respond(
    send: Send, error: GatewayError, request_id: str | None = None, *, headers: Pairs | None = None
) -> None:
    """Send an error in OpenAI's shape."""
    named: Pairs = [] if request_id is None else [(b"x-retort-request-id", request_id.encode())]
    await respond_json(send, status_of(error), openai_body(error), headers=[*named, *(headers or [])])


async def respond_json(send: Send, status: int, body: bytes, *, headers: Pairs | None = None) -> None:
    """Send a JSON body."""
    fields: Pairs = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
