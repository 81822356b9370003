"""Tool calls that a model writes into its text, which is how a student without a tools interface calls."""

import json
import re
from typing import Any

from exporters.models.tool_text import message_of
from router.scores import Asked

_TAGGED = re.compile(r"<(tool_call|function_call)>\s*(\{.*?\})\s*</\1>", re.DOTALL)  # Hermes, Qwen
_DECODER = json.JSONDecoder()


def calls_in_text(text: str) -> list[dict[str, Any]]:
    """The calls in a text, as an assistant message's `tool_calls` has them: tagged ones, else the text's first JSON
    value where it is, or lists, objects with a `name` and `arguments` (or `parameters`), or has `tool_calls`."""
    tagged = [_object(found[2]) for found in _TAGGED.finditer(text)]
    listed = tagged or _flat(_first_json(text))
    return [{"function": called} for value in listed if (called := _called(value)) is not None]


def said(text: str, asked: Asked) -> dict[str, Any]:
    """The assistant message that an answer is, as it is served: where tools were offered its calls are told apart."""
    return message_of(text) if asked.tools else {"role": "assistant", "content": text}


def with_calls(text: str, asked: Asked) -> dict[str, Any]:
    """An assistant message of a text, its calls told apart, also those that a student without tools writes."""
    if asked.tools:
        return said(text, asked)
    calls = calls_in_text(text)
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


def _first_json(text: str) -> Any:
    found = re.search(r"[\[{]", text)
    return _object(text[found.start() :]) if found else None


def _object(text: str) -> Any:
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        return list(value["tool_calls"])
    return value if isinstance(value, list) else [value]


def _called(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    return {"name": value["name"], "arguments": arguments} if isinstance(arguments, dict | str) else None
