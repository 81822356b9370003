"""OpenAI's stored chat completions: the objects that GET /v1/chat/completions lists, each with what
GET /v1/chat/completions/{id}/messages says of it (the list, or its page) under `messages`, `input` or
`request.messages`: the API gives the two separately.
"""

from collections.abc import Mapping
from typing import Any

from retort.imports.foreign import (
    Foreign,
    answer_of,
    consent_of,
    messages_of,
    parameters_of,
    seconds_of,
    text_of,
    usage_of,
)


def is_one(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like it."""
    return "choices" in record


def read(record: Mapping[str, Any]) -> list[Foreign]:
    """Raises Unusable."""
    request = record.get("request")
    answer, finish_reason = answer_of(record)
    metadata = record.get("metadata")
    return [
        Foreign(
            messages=_asked(record, request, answer),
            answer=_plain(answer),
            parameters=parameters_of(request, record, {"user": record.get("input_user")}),
            id=text_of(record.get("id")),
            models=tuple(filter(None, (text_of(record.get("model")),))),
            at=seconds_of(record.get("created")),
            finish_reason=finish_reason,
            usage=usage_of(record.get("usage")),
            system_fingerprint=text_of(record.get("system_fingerprint")) or None,
            session=text_of(metadata.get("session_id")) if isinstance(metadata, Mapping) else "",
            consent=consent_of(metadata),
        )
    ]


def _asked(record: Mapping[str, Any], request: Any, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = None
    for source in (request, record):
        if isinstance(source, Mapping):
            found = found or source.get("messages") or source.get("input")
    if isinstance(found, Mapping):
        found = found.get("data")  # a page
    messages = [_plain(message) for message in messages_of(found)]
    last, said = messages[-1], _plain(answer)
    if last["role"] == "assistant" and all(last.get(name) == said.get(name) for name in ("content", "tool_calls")):
        messages.pop()
    return messages_of(messages)


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what storing has added: an id, nulls, and parts of the content beside it."""
    plain = {n: v for n, v in message.items() if (v is not None or n == "content") and n not in ("id", "content_parts")}
    if message.get("content_parts"):
        plain["content"] = message["content_parts"]
    return plain
