"""A chat request, checked: what a student can't do is refused with a message that names it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.engines.errors import InvalidRequest
from gateway.engines.protocol import Options

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MOST_STOPS = 16
_MOST_ALTERNATIVES = 20


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`messages`: {role, content}, text alone. `usage`: whether a stream ends with a usage chunk."""

    messages: list[dict[str, str]]
    options: Options
    stream: bool
    usage: bool


def read(body: bytes) -> ChatRequest:
    """Read a request body. Unknown fields are passed over, as OpenAI's servers do. Raises InvalidRequest."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object with a list of messages.")
    _refuse_unsupported(data)
    stream = _boolean(data, "stream")
    stream_options = data.get("stream_options")
    if stream_options is not None and not (stream and isinstance(stream_options, dict)):
        raise _bad("stream_options", "is an object, and only allowed with stream: true")
    return ChatRequest(
        messages=_messages(data.get("messages")),
        options=_options(data),
        stream=stream,
        usage=_boolean(stream_options or {}, "include_usage"),
    )


def _neutral(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)


# What a field may say without asking for anything. Anything else is refused: silently passing it over would give
# an answer that looks as if it had been obeyed.
_UNSUPPORTED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("n", _neutral(1), "only one answer a request"),
    ("tools", _neutral([]), "tools can't be called"),
    ("tool_choice", _neutral("none", "auto"), "tools can't be called"),
    ("functions", _neutral([]), "functions can't be called"),
    ("function_call", _neutral("none", "auto"), "functions can't be called"),
    ("response_format", _neutral({"type": "text"}), "only {type: text}"),
    ("logit_bias", _neutral({}), "logits can't be biased"),
    ("modalities", _neutral(["text"]), "only text"),
    ("audio", _neutral(), "only text"),
    ("prediction", _neutral(), "no predicted outputs"),
    ("web_search_options", _neutral(), "there is no web search"),
    ("frequency_penalty", _neutral(0), "no penalties"),
    ("presence_penalty", _neutral(0), "no penalties"),
)


def _refuse_unsupported(data: Mapping[str, Any]) -> None:
    for name, neutral, message in _UNSUPPORTED:
        value = data.get(name)
        if value is not None and not neutral(value):
            raise _bad(name, f"is not supported by this model: {message}")


def _messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise _bad("messages", "must be a list of at least one message")
    return [_message(message, f"messages[{at}]") for at, message in enumerate(value)]


def _message(message: Any, name: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise _bad(name, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _bad(f"{name}.role", f"must be one of {', '.join(_ROLES)}")
    if message.get("tool_calls") or message.get("function_call") or message.get("audio"):
        raise _bad(name, "holds a tool call or audio; this model reads text alone")
    return {"role": _ROLES[role], "content": _text(message.get("content"), f"{name}.content")}


def _text(content: Any, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _bad(name, "must be a text or a list of text parts")
    texts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in content]
    if not all(isinstance(t, str) for t in texts):
        raise _bad(name, "holds a part that is not text; this model reads text alone")
    return "".join(map(str, texts))


def _options(data: Mapping[str, Any]) -> Options:
    names = ("max_completion_tokens", "max_tokens")
    limits = [limit for name in names if (limit := _integer(data, name, least=1)) is not None]
    temperature = _number(data, "temperature", most=2.0)
    top_p = _number(data, "top_p", most=1.0)
    top = _integer(data, "top_logprobs", least=0, most=_MOST_ALTERNATIVES)
    logprobs = _boolean(data, "logprobs")
    if top and not logprobs:
        raise _bad("top_logprobs", "needs logprobs: true")
    return Options(
        max_tokens=min(limits, default=None),
        temperature=1.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=_integer(data, "seed", least=-(2**63), most=2**63 - 1),
        stop=_stops(data.get("stop")),
        top_logprobs=(top or 0) if logprobs else None,
    )


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > _MOST_STOPS:
        raise _bad("stop", f"must be a text, or a list of at most {_MOST_STOPS} texts, none of them empty")
    return tuple(stops)


def _integer(data: Mapping[str, Any], name: str, *, least: int, most: int | None = None) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise _bad(name, f"must be a whole number {limit}")
    return value


def _number(data: Mapping[str, Any], name: str, *, most: float) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.0 <= value <= most:
        raise _bad(name, f"must be a number from 0 to {most:g}")
    return float(value)


def _boolean(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise _bad(name, "must be true or false")
    return bool(value)


def _bad(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {message}.", param=name)
