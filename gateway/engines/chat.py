"""A chat request, checked: what a student can't do is refused with a message that names it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from exporters.models.tool_text import Untellable, spelt
from gateway.engines import fields
from gateway.engines.errors import InvalidRequest
from gateway.engines.fields import bad
from gateway.engines.protocol import Options
from router.offered import CHOICES, offered

_MOST_STOPS = 16
_MOST_ALTERNATIVES = 20
_ANY_OBJECT = '{"type": "object"}'
_LONGEST_SCHEMA = 65_536


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`messages`: {role, content}, text alone, with tools as text. `usage`: whether a stream ends with a usage chunk.
    `tools`: whether any may be called."""

    messages: list[dict[str, str]]
    options: Options
    stream: bool
    usage: bool
    tools: bool = False


def read(body: bytes, *, tools: bool = False) -> ChatRequest:
    """Read a request body. Unknown fields are passed over, as OpenAI's servers do. `tools`: whether the version has
    learnt to call tools. Raises InvalidRequest."""
    data = fields.body(body, holds="a list of messages")
    _refuse_unsupported(data)
    functions = _tools(data, learnt=tools)
    stream = fields.boolean(data, "stream")
    stream_options = data.get("stream_options")
    if stream_options is not None and not (stream and isinstance(stream_options, dict)):
        raise bad("stream_options", "is an object, and only allowed with stream: true")
    options = _options(data)
    if functions and options.top_logprobs is not None:
        raise bad("logprobs", "is not supported together with tools")
    if functions and options.schema:
        raise bad("response_format", "is not supported together with tools")
    return ChatRequest(
        messages=_messages(data.get("messages"), functions, learnt=tools),
        options=options,
        stream=stream,
        usage=fields.boolean(stream_options or {}, "include_usage"),
        tools=bool(functions),
    )


def _neutral(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)


# What a field may say without asking for anything. Anything else is refused: silently passing it over would give
# an answer that looks as if it had been obeyed.
_UNSUPPORTED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("n", _neutral(1), "only one answer a request"),
    ("tool_choice", _neutral(*CHOICES), "no call can be forced"),
    ("functions", _neutral([]), "functions can't be called"),
    ("function_call", _neutral("none", "auto"), "functions can't be called"),
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
            raise bad(name, f"is not supported by this model: {message}")


def _tools(data: Mapping[str, Any], *, learnt: bool) -> list[dict[str, Any]]:
    functions = offered(data)
    if data.get("tools") and not learnt:
        raise bad("tools", "is not supported by this model: tools can't be called")
    if functions is None and data.get("tools") and data.get("parallel_tool_calls") is False:
        raise bad("parallel_tool_calls", "is not supported by this model: it may make several calls at once")
    if functions is None:
        raise bad("tools", "must be a list of functions, {type: function, function: {name: ..., ...}}")
    return functions


def _messages(value: Any, functions: list[dict[str, Any]], *, learnt: bool) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise bad("messages", "must be a list of at least one message")
    for at, message in enumerate(value):
        if not learnt and isinstance(message, dict) and (message.get("role") == "tool" or message.get("tool_calls")):
            name = f"messages[{at}]{'.role' if message.get('role') == 'tool' else ''}"
            raise bad(name, "holds a tool call or its result; this model calls no tools")
    try:
        return spelt(value, functions)
    except Untellable as error:
        raise InvalidRequest(f"{error}.", param=error.name) from None


def _options(data: Mapping[str, Any]) -> Options:
    names = ("max_completion_tokens", "max_tokens")
    limits = [limit for name in names if (limit := fields.integer(data, name, least=1)) is not None]
    temperature = fields.number(data, "temperature", most=2.0)
    top_p = fields.number(data, "top_p", most=1.0)
    top = fields.integer(data, "top_logprobs", least=0, most=_MOST_ALTERNATIVES)
    logprobs = fields.boolean(data, "logprobs")
    if top and not logprobs:
        raise bad("top_logprobs", "needs logprobs: true")
    return Options(
        max_tokens=min(limits, default=None),
        temperature=1.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=fields.integer(data, "seed", least=-(2**63), most=2**63 - 1),
        stop=_stops(data.get("stop")),
        top_logprobs=(top or 0) if logprobs else None,
        schema=_schema(data.get("response_format")),
    )


def _schema(form: Any) -> str:
    """The JSON Schema that is asked for; "" where any text will do."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return ""
    if kind == "json_object":
        return _ANY_OBJECT
    described = form.get("json_schema") if kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        raise bad(
            "response_format",
            "must be {type: text}, {type: json_object} or {type: json_schema, json_schema: {name: ..., schema: {...}}}",
        )
    spelt_out = json.dumps(schema)
    if len(spelt_out) > _LONGEST_SCHEMA:
        raise bad("response_format", f"holds a schema of more than {_LONGEST_SCHEMA} characters")
    return spelt_out


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops) or len(stops) > _MOST_STOPS:
        raise bad("stop", f"must be a text, or a list of at most {_MOST_STOPS} texts, none of them empty")
    return tuple(stops)
