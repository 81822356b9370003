"""An assistant message as scores see it: its text, its tool calls, and whether a text is JSON."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

Message = Mapping[str, Any]

# Levels of JSON that are compared: more than any real answer has, and so few that Python's own limit, which depends on
# who calls, never decides a score.
DEEPEST = 100


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments`: the JSON value; where the model wrote no JSON, its text."""

    name: str
    arguments: Any


def answer_text(message: Message | None) -> str:
    """A message's text: its content, or the text parts of it, joined."""
    content = message.get("content") if message else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def tool_calls(message: Message | None) -> list[ToolCall]:
    """A message's calls in their order; the older `function_call` is one."""
    if not message:
        return []
    listed = message.get("tool_calls")
    functions = [c.get("function") for c in listed if isinstance(c, Mapping)] if isinstance(listed, list) else []
    found = [f for f in (*functions, message.get("function_call")) if isinstance(f, Mapping)]
    return [ToolCall(str(f.get("name", "")), _arguments(f.get("arguments"))) for f in found]


def _arguments(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json_value(value) if value.strip() else {}
    except (ValueError, RecursionError):
        return value


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value that can be read: one nested too deeply for that is none."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def json_value(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where it is none (NaN and Infinity are none), RecursionError where it
    is nested deeper than DEEPEST levels."""
    value = json.loads(text, parse_constant=_refuse)
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise RecursionError(f"JSON nested deeper than {DEEPEST} levels")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
