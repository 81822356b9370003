"""One chat exchange as another system logged it, and how the fields of such logs are read."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from collector.record import Usage

# What of a request is kept beside its messages, by its name in the chat API.
PARAMETERS = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "temperature",
    "top_p",
    "n",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "stream",
    "user",
)
_PROMPT_TOKENS = ("prompt_tokens", "promptTokens", "input", "input_tokens", "inputTokens")
_COMPLETION_TOKENS = ("completion_tokens", "completionTokens", "output", "output_tokens", "outputTokens")
_CONSENT = ("x-retort-consent", "consent")
_MILLISECONDS = 1e11  # a later time than this is none in seconds


class Unusable(Exception):
    """A record that can't be imported; the message is a short constant and says why."""


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. Empty or None: the log does not say.

    `messages` and `answer`: as the chat API has them. `parameters`: what else was in the request. `id`: of the record,
    in its own system. `models`: the names that it gives to the model that answered, the most exact one last. `at`: Unix
    seconds. `session`: what names the conversation. `consent`: whether the user's texts may be kept.
    """

    messages: list[dict[str, Any]]
    answer: dict[str, Any]
    parameters: dict[str, Any] = {}
    id: str = ""
    models: tuple[str, ...] = ()
    at: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    system_fingerprint: str | None = None
    session: str = ""
    consent: bool | None = None


def messages_of(value: Any) -> list[dict[str, Any]]:
    """A request's messages. Raises Unusable."""
    if not isinstance(value, list) or not value:
        raise Unusable("no_messages")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in value):
        raise Unusable("bad_message")
    return value


def answer_of(completion: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The first choice's message and finish reason. Raises Unusable."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Unusable("no_answer")
    return message, text_of(choice.get("finish_reason")) or None


def parameters_of(*sources: Any) -> dict[str, Any]:
    """The request's parameters in these objects; the first one that has one counts."""
    found: dict[str, Any] = {}
    for name in PARAMETERS:
        values = (source.get(name) for source in sources if isinstance(source, Mapping))
        value = next((v for v in values if v is not None), None)
        if value is not None:
            found[name] = value
    return found


def usage_of(*sources: Any) -> Usage | None:
    """Tokens, from the first of these objects that counts any."""
    for source in sources:
        prompt, completion = _count(source, _PROMPT_TOKENS), _count(source, _COMPLETION_TOKENS)
        if prompt is not None or completion is not None:
            return Usage(prompt_tokens=prompt or 0, completion_tokens=completion or 0)
    return None


def _count(source: Any, names: Iterable[str]) -> int | None:
    if not isinstance(source, Mapping):
        return None
    found = (number_of(source.get(name)) for name in names)
    return next((int(n) for n in found if n is not None and n >= 0), None)


def number_of(value: Any) -> float | None:
    """A finite number, also one in a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def seconds_of(value: Any) -> float | None:
    """Unix seconds from a number of seconds or milliseconds, or from an ISO date and time, in UTC where it names no
    zone."""
    number = number_of(value)
    if number is not None:
        number = number / 1000.0 if number > _MILLISECONDS else number
        return number if number > 0.0 else None
    try:
        at = datetime.fromisoformat(text_of(value))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def decoded(value: Any) -> Any:
    """What a text that is JSON says; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def text_of(value: Any) -> str:
    """A text; empty where it is none."""
    return value if isinstance(value, str) else ""


def consent_of(*sources: Any) -> bool | None:
    """What metadata say of consent, as the gateway's header would: yes or no, under its name or `consent`."""
    for source in sources:
        for name in _CONSENT:
            said = str(source.get(name, "")).strip().lower() if isinstance(source, Mapping) else ""
            if said in ("yes", "true", "no", "false"):
                return said in ("yes", "true")
    return None
