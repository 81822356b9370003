"""From an answer's raw bytes to its message: a plain completion, or a stream's deltas put together again."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from collector.record import TokenLogprob, Usage
from router import split_thinking

# A message's fields of thinking: DeepSeek's and vLLM's, OpenRouter's, and what signs, summarises or repeats it.
_REASONING = ("reasoning_content", "reasoning")
_MORE_REASONING = ("reasoning_details", "thinking_blocks")


class Unreadable(Exception):
    """The bytes are no chat completion; the message says why, without quoting them."""


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Told(_Alternative):
    top_logprobs: list[_Alternative] = []


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream said. `reasoning`: its thinking, which then isn't in the message, whether it came in a field of
    its own or in `<think>` before the content. `logprobs`: of its tokens; empty where it told none."""

    message: dict[str, Any]
    reasoning: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


def completion(body: bytes) -> Completion:
    """Read a plain answer or a stream. Raises Unreadable."""
    if body.lstrip()[:1] == b"{":
        return _plain(_object(body))
    return _stream(list(_chunks(body)))


def request(body: bytes) -> dict[str, Any]:
    """A client's request. Raises Unreadable."""
    return _object(body)


def try_completion(body: bytes) -> Completion | None:
    """As `completion`; None for what is empty or can't be read."""
    try:
        return completion(body) if body else None
    except (Unreadable, RecursionError):
        return None


def try_request(body: bytes) -> dict[str, Any] | None:
    """As `request`; None for what is empty or can't be read."""
    try:
        return request(body) if body else None
    except (Unreadable, RecursionError):
        return None


def words(said: Completion | None, *, reasoning: bool) -> dict[str, Any]:
    """All that an upstream worded itself; its thinking where that may be kept."""
    if said is None:
        return {}
    return {
        "message": said.message,
        **({"reasoning": said.reasoning} if reasoning else {}),
        "finish_reason": said.finish_reason,
        "model": said.model,
        "system_fingerprint": said.system_fingerprint,
    }


def spelt(said: Completion | None) -> tuple[TokenLogprob, ...]:
    """An answer's tokens with their alternatives, where they spell its content, after its thinking. They are
    fragments, which no scrubber can read, and an alternative may be a name that stands elsewhere in the exchange:
    whoever keeps them must know that scrubbing found nothing in all of it."""
    if said is None or not isinstance(content := said.message.get("content"), str):
        return ()
    left = sum(len(token.token) for token in said.logprobs) - len(content)  # characters of thinking
    for at, token in enumerate(said.logprobs):
        if left <= 0 or not said.reasoning:
            return said.logprobs[at:] if "".join(t.token for t in said.logprobs[at:]) == content else ()
        left -= len(token.token)
    return ()


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Unreadable("not JSON") from error
    if not isinstance(value, dict):
        raise Unreadable("not a JSON object")
    return value


def _plain(data: dict[str, Any]) -> Completion:
    choice = _first_choice(data)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unreadable("a choice without a message")
    message, reasoning = _apart(message)
    return Completion(
        message=message,
        reasoning=reasoning,
        finish_reason=_string(choice.get("finish_reason")),
        model=_string(data.get("model")),
        system_fingerprint=_string(data.get("system_fingerprint")),
        usage=_usage(data.get("usage")),
        logprobs=tuple(_logprobs(choice)),
    )


def _chunks(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream's events; a last one that the stream's early end cut in two is left out."""
    *whole, rest = body.replace(b"\r\n", b"\n").split(b"\n\n")
    for data in map(_data, whole):
        if data:
            yield _object(data)
    if data := _data(rest):  # no blank line ended it: it may be cut, or only lack that line
        with contextlib.suppress(Unreadable):
            yield _object(data)


def _data(event: bytes) -> bytes:
    """What an event's `data:` lines say; nothing, where it is none or the stream's last."""
    data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"" if data == b"[DONE]" else data


def _stream(chunks: list[dict[str, Any]]) -> Completion:
    if not chunks:
        raise Unreadable("neither a JSON object nor an event stream")
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, dict[str, Any]] = {}
    logprobs: list[TokenLogprob] = []
    finish = usage = None
    for chunk in chunks:
        usage = _usage(chunk.get("usage")) or usage
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            continue  # a chunk of usage alone
        finish = _string(choices[0].get("finish_reason")) or finish
        logprobs += _logprobs(choices[0])
        delta = choices[0].get("delta")
        if isinstance(delta, dict):
            _add(message, calls, delta)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    known = next((c for c in chunks if c.get("model")), {})
    message, reasoning = _apart(message)
    return Completion(
        message=message,
        reasoning=reasoning,
        finish_reason=finish,
        model=_string(known.get("model")),
        system_fingerprint=_string(known.get("system_fingerprint")),
        usage=usage,
        logprobs=tuple(logprobs),
    )


def _apart(message: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A message without its thinking, and that."""
    told = [text for name in _REASONING if isinstance(text := message.get(name), str) and text.strip()]
    message = {k: v for k, v in message.items() if k not in (*_REASONING, *_MORE_REASONING)}
    if isinstance(message.get("content"), str):
        thought, message["content"] = split_thinking(message["content"])
        told += [thought] if thought else []
    return message, told[0].strip() if told else None


def _add(message: dict[str, Any], calls: dict[int, dict[str, Any]], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls" and isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    _add_call(calls.setdefault(_index(part), {}), part)
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value
        elif value is not None:
            message[name] = value


def _add_call(call: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Names and ids come whole, arguments in pieces."""
    for name, value in part.items():
        if name == "function" and isinstance(value, dict):
            function = call.setdefault("function", {})
            for key, piece in value.items():
                whole = key == "arguments" and isinstance(piece, str)
                function[key] = function.get(key, "") + piece if whole else piece
        elif name != "index" and value is not None:
            call[name] = value


def _index(part: Mapping[str, Any]) -> int:
    index = part.get("index", 0)
    return index if isinstance(index, int) else 0


def _first_choice(data: Mapping[str, Any]) -> dict[str, Any]:
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Unreadable("no choices")
    return choices[0]


def _logprobs(choice: Mapping[str, Any]) -> list[TokenLogprob]:
    """A choice's tokens with their alternatives; none where it tells none, or not as OpenAI does."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    try:
        tokens = msgspec.convert(content or [], list[_Told])
    except msgspec.ValidationError:
        return []
    return [TokenLogprob(t.token, t.logprob, {a.token: a.logprob for a in t.top_logprobs}) for t in tokens]


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    try:
        return msgspec.convert(value, Usage)
    except msgspec.ValidationError:
        return None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
