"""Which tools a request offers, where a student that calls tools could take it. Pure."""

from collections.abc import Mapping
from typing import Any

CHOICES = ("none", "auto")  # of `tool_choice`: a student can't be made to call


def offered(request: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The functions that may be called, in OpenAI's form; none where `tool_choice` is `none`. None where tools are
    asked for in a way that no student follows: another kind of tool, the older `functions`, a call that must be made,
    or one call at the most."""
    tools, choice = request.get("tools"), request.get("tool_choice")
    if request.get("functions") or choice not in (None, *CHOICES) or not (tools is None or isinstance(tools, list)):
        return None
    if not all(map(_is_function, tools or ())) or (tools and request.get("parallel_tool_calls") is False):
        return None
    return [] if choice == "none" else [dict(tool) for tool in tools or ()]


def uses_tools(request: Mapping[str, Any]) -> bool:
    """Whether a request offers tools, or its conversation has used some."""
    messages = request.get("messages")
    listed = [m for m in messages if isinstance(m, Mapping)] if isinstance(messages, list) else []
    called = any(m.get("role") == "tool" or m.get("tool_calls") for m in listed)
    return called or any(request.get(name) for name in ("tools", "functions"))


def _is_function(tool: object) -> bool:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return False
    function = tool.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("name"), str) and bool(function["name"])
