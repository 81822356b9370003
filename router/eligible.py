"""Whether a student may answer a request at all. What it may not answer is outside every test's population."""

from collections.abc import Mapping
from typing import Any

from router.enforceable import enforceable
from router.offered import offered
from router.policy import RoutePolicy

_REFUSED = (
    "functions",
    "function_call",
    "logit_bias",
    "audio",
    "modalities",
    "prediction",
    "web_search_options",
)
_PENALTIES = ("frequency_penalty", "presence_penalty")
_TOOLS = ("tools", "tool_choice")
_ROLES = ("system", "developer", "user", "assistant")
_NOT_TEXT = ("function_call", "audio")


def ineligible(policy: RoutePolicy, body: Mapping[str, Any], size: int, *, tools: bool = False) -> str | None:
    """The reason why no student may answer, or None.

    `body`: the request's parsed top level; `size`: its length in bytes. `tools`: whether the version that it would be
    evidence of has learnt to call tools.
    """
    if policy.student is None:
        return "no_student"
    if size > policy.student.max_prompt_bytes:
        return "too_long"
    for name in _REFUSED:
        if body.get(name) is not None:
            return name
    if tools:
        if offered(body) is None:
            return "tools"
    else:
        for name in _TOOLS:
            if body.get(name) is not None:
                return name
    if (policy.student.may_choose or body.get("tools")) and body.get("logprobs"):
        return "logprobs"
    for name in _PENALTIES:
        if body.get(name):
            return name
    if body.get("n") not in (None, 1):
        return "n"
    shape = body.get("response_format")
    if shape is not None and not _enforced(shape, tools=bool(body.get("tools"))):
        return "response_format"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "no_messages"
    return None if all(_is_text(message, tools=tools) for message in messages) else "content"


def _enforced(shape: Any, *, tools: bool) -> bool:
    """Whether every engine gives an answer in this form."""
    kind = shape.get("type") if isinstance(shape, Mapping) else None
    if kind == "json_schema":
        described = shape.get("json_schema")
        return not tools and enforceable(described.get("schema") if isinstance(described, Mapping) else None)
    return kind == "text" or (kind == "json_object" and not tools)


def _is_text(message: object, *, tools: bool) -> bool:
    if not isinstance(message, Mapping) or message.get("role") not in (*_ROLES, *(("tool",) if tools else ())):
        return False
    if any(message.get(name) for name in _NOT_TEXT):
        return False
    content, calls = message.get("content"), message.get("tool_calls")
    if calls:
        return tools and (content is None or isinstance(content, str))
    if isinstance(content, list):
        return all(isinstance(part, Mapping) and part.get("type") == "text" for part in content)
    return isinstance(content, str)
