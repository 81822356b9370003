"""Langfuse's observations, of which generations are exchanges: exported from its tables (JSON, CSV), from its API, or
to blob storage (JSONL, JSON, CSV), where the names have underscores and nested values are texts.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

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


def is_one(record: Mapping[str, Any]) -> bool:
    """Whether a record looks like it."""
    return "input" in record and bool({"output", "traceId", "trace_id"} & record.keys())


def read(record: Mapping[str, Any]) -> list[Foreign]:
    """Raises Unusable."""
    record = {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): value for name, value in record.items()}
    if str(record.get("type") or "GENERATION").upper() != "GENERATION":
        raise Unusable("not_a_generation")
    if str(record.get("level")).upper() == "ERROR":
        raise Unusable("failed")
    asked = decoded(record.get("input"))
    answer, finish_reason = _answer(record.get("output"))
    metadata = decoded(record.get("metadata"))
    model = text_of(record.get("model")) or text_of(record.get("providedModelName"))
    session = record.get("sessionId") or (metadata.get("session_id") if isinstance(metadata, Mapping) else "")
    extra = {"user": record.get("userId") or None, "tools": _tools(decoded(record.get("toolDefinitions")))}
    return [
        Foreign(
            messages=_messages(asked),
            answer=answer,
            parameters=parameters_of(asked, decoded(record.get("modelParameters")), extra),
            id=text_of(record.get("id")),
            models=(model,) if model else (),
            at=seconds_of(record.get("startTime")),
            finish_reason=finish_reason,
            usage=usage_of(decoded(record.get("usageDetails")), decoded(record.get("usage")), _counted(record)),
            session=text_of(session),
            consent=consent_of(metadata),
        )
    ]


def _messages(asked: Any) -> list[dict[str, Any]]:
    if isinstance(asked, Mapping):
        if "role" in asked:
            return messages_of([asked])
        asked = asked.get("messages") or asked.get("prompt")
    if isinstance(asked, str) and asked:
        return [{"role": "user", "content": asked}]
    return messages_of(asked)


def _answer(output: Any) -> tuple[dict[str, Any], str | None]:
    """A completion, a message, the last of several, or a text. Where the text was JSON, an export may hold what it
    says; how it was spaced is lost then."""
    said = decoded(output)
    if isinstance(said, list) and said and isinstance(said[-1], Mapping) and said[-1].get("role") == "assistant":
        said = said[-1]
    if isinstance(said, Mapping):
        if "choices" in said:
            return answer_of(said)
        if said.get("role") == "assistant":
            return dict(said), None
    if not said:
        raise Unusable("no_answer")
    text = output if isinstance(output, str) else json.dumps(said, ensure_ascii=False)
    return {"role": "assistant", "content": said if isinstance(said, str) else text}, None


def _counted(record: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens that stand beside the texts `input` and `output`, which are none."""
    return {name: value for name, value in record.items() if name.endswith("Tokens")}


def _tools(definitions: Any) -> list[dict[str, Any]] | None:
    """Tools that the model was given, by name, where the input does not hold them."""
    if not isinstance(definitions, Mapping) or not definitions:
        return None
    found = []
    for name, definition in definitions.items():
        more = decoded(definition)
        found.append({"type": "function", "function": {"name": name, **(more if isinstance(more, dict) else {})}})
    return found
