"""Which headers go on, in both directions: allow-lists, so that nothing unknown leaks either way."""

from collections.abc import Mapping

Pairs = list[tuple[bytes, bytes]]

# Named by lower-case bytes, as ASGI gives them. No content-length, no connection, no cookies, none of x-retort-*.
_REQUEST = {
    name.encode(): name
    for name in (
        "accept",
        "content-type",
        "idempotency-key",
        "openai-beta",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-client-request-id",
    )
}
# The client's own account: they mean something with the client's own key alone.
_REQUEST_WITH_CLIENTS_KEY = {name.encode(): name for name in ("authorization", "openai-organization", "openai-project")}
_RESPONSE = frozenset(
    {
        "cache-control",
        "content-type",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "retry-after-ms",
        "x-request-id",
        "x-should-retry",
    }
)
_RESPONSE_PREFIX = "x-ratelimit-"


def to_upstream(client: Mapping[bytes, bytes], fixed: Mapping[str, str], *, passthrough: bool) -> dict[str, str]:
    """The request headers for an upstream: those of the client that may go on, then `fixed`, which win.

    Answers are asked for unencoded: they are read on the way (errors, confidence, capture), and a second
    compression would cost more than it saves between servers.
    """
    headers = {"content-type": "application/json"}
    for name, value in client.items():
        known = _REQUEST.get(name) or (_REQUEST_WITH_CLIENTS_KEY.get(name) if passthrough else None)
        if known is not None:
            headers[known] = value.decode("latin-1")
    headers["accept-encoding"] = "identity"
    headers.update(fixed)
    return headers


def to_client(upstream: Mapping[str, str]) -> Pairs:
    """The response headers that the client gets. Without `content-encoding` and length: what goes on is decoded."""
    kept: Pairs = []
    for name, value in upstream.items():
        lowered = name.lower()
        if lowered in _RESPONSE or lowered.startswith(_RESPONSE_PREFIX):
            kept.append((lowered.encode(), value.encode("latin-1", "replace")))
    return kept
