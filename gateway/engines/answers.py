"""Answers in OpenAI's shape: a completion, or the chunks of a stream."""

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from exporters.models.confidence import DIGITS
from exporters.models.tool_text import Call
from gateway.engines.protocol import Alternative, Done, Piece, Token

CONFIDENCE_HEADER = "x-retort-confidence"
DONE_EVENT = b"data: [DONE]\n\n"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of the prompt (template included) and of the answer (end token and thinking included)."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0

    def data(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        used: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.reasoning_tokens:
            used["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return used


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of one answer share. `created`: Unix seconds. `logprobs`, `usage`: whether they were asked for
    (usage: as a stream's last chunk)."""

    id: str
    created: int
    model: str
    logprobs: bool
    usage: bool

    def completion(
        self, parts: Sequence[str | Call], reasoning: str, tokens: Sequence[Token], done: Done, usage: Usage
    ) -> bytes:
        """The whole answer, as JSON. `parts`: its text, in pieces, and its calls. `reasoning`: what was thought before
        it, told as DeepSeek and vLLM do."""
        calls = [part.data(_call_id()) for part in parts if isinstance(part, Call)]
        text = "".join(part for part in parts if isinstance(part, str))
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        message |= {"tool_calls": calls} if calls else {}
        message |= {"reasoning_content": reasoning} if reasoning else {}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": _reason(done, called=bool(calls)),
        }
        return msgspec.json.encode({**self._head("chat.completion"), "choices": [choice], "usage": usage.data()})

    def role(self) -> bytes:
        """A stream's first event."""
        return self._chunk({"role": "assistant", "content": ""}, ())

    def piece(self, piece: Piece) -> bytes:
        """The events for some thinking, or some text."""
        thought = self._chunk({"reasoning_content": piece.reasoning}, ()) if piece.reasoning else b""
        said = self._chunk({"content": piece.text}, piece.tokens) if piece.text or piece.tokens else b""
        return thought + said

    def call(self, number: int, call: Call) -> bytes:
        """The event for the answer's `number`-th call, counted from 0."""
        return self._chunk({"tool_calls": [{"index": number, **call.data(_call_id())}]}, ())

    def ending(self, done: Done, usage: Usage, *, called: bool = False) -> bytes:
        """A stream's last events: the reason, the usage where it was asked for, the confidence, the end marker.
        `called`: whether there was a call."""
        events = [self._chunk({}, (), finish_reason=_reason(done, called=called))]
        if self.usage:
            events.append(_event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage.data()}))
        events.append(b": retort-confidence %s\n\n" % confidence(done.confidence).encode())
        return b"".join([*events, DONE_EVENT])

    def _chunk(self, delta: dict[str, Any], tokens: Sequence[Token], *, finish_reason: str | None = None) -> bytes:
        logprobs = self._logprobs(tokens) if tokens else None
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self.usage:
            chunk["usage"] = None
        return _event(chunk)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.model,
        }

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [{**_token(t), "top_logprobs": [_token(a) for a in t.top]} for t in tokens]
        return {"content": content, "refusal": None}


def confidence(value: float) -> str:
    """In [0, 1], with as many digits as a confidence has."""
    return f"{value:.{DIGITS}f}"


def _reason(done: Done, *, called: bool) -> str:
    return "tool_calls" if called and done.finish_reason == "stop" else done.finish_reason


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _token(token: Token | Alternative) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
