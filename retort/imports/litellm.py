"""LiteLLM's logs: the standard logging payload (as its callbacks and buckets get it), or rows of the spend logs."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from retort.imports.foreign import (
    Foreign,
    Unusable,
    answer_of,
    consent_of,
    decoded,
    messages_of,
    parameters_of,
    seconds_of,
    text_of,
    usage_of,
)

_MADE_UP = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CHAT = ("completion", "acompletion")
# Of texts that LiteLLM was told to leave out, or cut before it stored them.
_NOT_WHOLE = (b"redacted-by-litellm", b"REDACTED_BY_LITELM", b"(litellm_truncated skipped")


def is_one(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like it."""
    return "call_type" in record or ("response" in record and ("startTime" in record or "response_cost" in record))


def read(record: Mapping[str, Any]) -> list[Foreign]:
    """Raises Unusable."""
    if record.get("status") == "failure":
        raise Unusable("failed")
    if record.get("call_type", "completion") not in _CHAT:
        raise Unusable("other_call")
    request = decoded(record.get("proxy_server_request"))
    if isinstance(request, Mapping) and isinstance(request.get("body"), Mapping):
        request = request["body"]
    response = decoded(record.get("response"))
    if isinstance(response, str) and response:
        response = {"choices": [{"message": {"role": "assistant", "content": response}}]}
    elif not isinstance(response, Mapping):
        raise Unusable("no_answer")
    messages = _asked(record, request)
    answer, finish_reason = answer_of(response)
    if any(mark in msgspec.json.encode([messages, answer]) for mark in _NOT_WHOLE):
        raise Unusable("redacted")
    metadata = decoded(record.get("metadata"))
    client = decoded(metadata.get("requester_metadata")) if isinstance(metadata, Mapping) else None
    headers = metadata.get("requester_custom_headers") if isinstance(metadata, Mapping) else None
    return [
        Foreign(
            messages=messages,
            answer=answer,
            parameters=parameters_of(
                request, decoded(record.get("model_parameters")), {"user": record.get("end_user") or None}
            ),
            id=text_of(record.get("id")) or text_of(record.get("request_id")),
            models=tuple(filter(None, (text_of(record.get("model")), text_of(response.get("model"))))),
            at=seconds_of(record.get("startTime")),
            finish_reason=finish_reason,
            usage=usage_of(response.get("usage"), record),
            system_fingerprint=text_of(response.get("system_fingerprint")) or None,
            session=_session(record, client),
            consent=consent_of(headers, client),
        )
    ]


def _asked(record: Mapping[str, Any], request: Any) -> list[dict[str, Any]]:
    """Spend logs have the messages in the stored request, and an empty object in their place."""
    found = decoded(record.get("messages"))
    if isinstance(found, Mapping):
        found = found.get("messages")
    if isinstance(found, str) and found:
        return [{"role": "user", "content": found}]
    if not found and isinstance(request, Mapping):
        found = request.get("messages")
    return messages_of(found)


def _session(record: Mapping[str, Any], client: Any) -> str:
    """A session that the client named: as such, as the trace, or in its metadata. Where it named none, LiteLLM puts an
    id there that it made for this one request."""
    named, trace = text_of(record.get("session_id")), text_of(record.get("trace_id"))
    if named and named not in (trace, *(record.get(name) for name in ("id", "request_id", "litellm_call_id"))):
        return named
    if trace and not _MADE_UP.fullmatch(trace):
        return trace
    return text_of(client.get("session_id")) if isinstance(client, Mapping) else ""
