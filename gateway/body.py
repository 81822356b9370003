"""The client's body: read once under a size limit, parsed once, and its model replaced without rebuilding the rest."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BYTES = 32 << 20


class ClientGone(Exception):
    """The client left before its request was complete."""


class Body(msgspec.Struct, frozen=True):
    """A parsed request. `raw`: the bytes as they came. `top`: the object's keys.

    Where the body was larger than what a student could take, the messages' contents in `top` are left out.
    """

    raw: bytes
    model: str
    stream: bool
    top: dict[str, Any]
    opening: tuple[Any, Any]


class _Message(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw(b"null")


_whole = msgspec.json.Decoder(dict[str, Any])
_shallow = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[_Message])


async def read(scope: Scope, receive: Receive, *, limit: int = MAX_BYTES) -> bytes:
    """The request's bytes. Raises TooLarge as soon as that is known, ClientGone."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")  # most bodies come in one piece
        if len(body) > limit:
            raise _too_large(limit)
        return body
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {limit} bytes.")


def parse(raw: bytes, *, whole_up_to: int) -> Body:
    """Parse what routing needs. Bodies above `whole_up_to` bytes are not copied into Python values: of their messages
    only the roles and the opening (first system prompt, first user message) are read.

    Raises InvalidRequest.
    """
    try:
        if len(raw) <= whole_up_to:
            top = _whole.decode(raw)
            messages = top.get("messages")
            opening = _opening(messages) if isinstance(messages, list) else (None, None)
        else:
            top, opening = _parse_large(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The request's body is not a JSON object that can be read: {error}") from error
    model = top.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest('The request must name a model: "model" is missing or no string.', param="model")
    return Body(raw=raw, model=model, stream=top.get("stream") is True, top=top, opening=opening)


def _parse_large(raw: bytes) -> tuple[dict[str, Any], tuple[Any, Any]]:
    fields = _shallow.decode(raw)
    messages = fields.pop("messages", None)
    top: dict[str, Any] = {key: msgspec.json.decode(value) for key, value in fields.items()}
    if messages is None:
        return top, (None, None)
    try:
        listed = _messages.decode(messages)
    except msgspec.ValidationError:
        return {**top, "messages": None}, (None, None)  # odd, but the upstream's to judge
    top["messages"] = [{"role": message.role} for message in listed]
    system, user = _opening([{"role": m.role, "content": m.content} for m in listed])
    return top, (_value(system), _value(user))


def _value(content: Any) -> Any:
    return msgspec.json.decode(content) if isinstance(content, msgspec.Raw) else content


def _opening(messages: list[Any]) -> tuple[Any, Any]:
    system = user = None
    for message in messages:
        if not isinstance(message, dict):
            continue
        role = message.get("role")
        if role == "user":
            user = message.get("content")
            break
        if system is None and role in ("system", "developer"):
            system = message.get("content")
    return system, user


# A JSON string, taken in one step, and the signs that make the structure.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:")
_STRING = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")', re.DOTALL)


def with_model(raw: bytes, model_json: bytes) -> bytes:
    """The same bytes with the value of every top-level "model" key replaced by `model_json` (a JSON string).

    `raw` must be a JSON object whose "model" is a string, as `parse` has found it; nothing else of it is touched.
    """
    if raw.count(b'"model"') == 1 and b"\\u006" not in raw:
        # The only place where the key can be: no character of it can be escaped without \u006.
        spans = [_span(raw, raw.index(b'"model"') + 7)]
    else:
        spans = [_span(raw, end) for end in _model_keys(raw)]
    pieces: list[bytes] = []
    at = 0
    for span in spans:
        if span is not None:
            pieces += (raw[at : span[0]], model_json)
            at = span[1]
    pieces.append(raw[at:])
    return b"".join(pieces)


def _span(raw: bytes, key_end: int) -> tuple[int, int] | None:
    found = _STRING.match(raw, key_end)
    return found.span(1) if found else None


def _model_keys(raw: bytes) -> list[int]:
    """Where the top-level keys that spell "model" end. A string is a key when a colon follows it."""
    depth = 0
    ends: list[int] = []
    for token in _TOKEN.finditer(raw):
        sign = token[0]
        if sign in (b"{", b"["):
            depth += 1
        elif sign in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and _COLON.match(raw, token.end()) and (sign == b'"model"' or _unescaped(sign) == "model"):
            ends.append(token.end())
    return ends


def _unescaped(string: bytes) -> str | None:
    return msgspec.json.decode(string, type=str) if b"\\" in string and len(string) <= 32 else None
