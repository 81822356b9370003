"""What is asked of a vLLM server, and what it answers. Pure."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.engines.errors import (
    ContextTooLong,
    DecodeFailed,
    EngineError,
    InvalidRequest,
    QueueFull,
    VersionUnknown,
    WorkerGone,
)
from gateway.engines.protocol import Options

GREEDY_BELOW = 1e-4  # as the other runtimes take it
LEAST_TOP_P = 1e-9  # vLLM refuses 0, which leaves the likeliest token alone, as this does
# Of white space a blank where it may stand: a small model goes on with it for ever otherwise. The llguidance of vLLM
# 0.32 allows any number of `whitespace_pattern`; so its white space is off, and the separators bring the blank.
_WHITE_SPACE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_ID = "token_id:"


class Alternative(msgspec.Struct):
    """`token`: token_id:NUMBER."""

    token: str
    logprob: float


class Told(msgspec.Struct):
    """One token of an answer."""

    token: str
    logprob: float
    top_logprobs: list[Alternative] = []

    @property
    def id(self) -> int:
        """The token's number."""
        return number(self.token)

    def likeliest(self, most: int) -> list[tuple[int, float]]:
        """At most `most` tokens, the likeliest first. vLLM puts the one that was chosen first, whatever its rank."""
        ranked = sorted(self.top_logprobs, key=lambda one: -one.logprob)
        return [(number(one.token), one.logprob) for one in ranked[:most]]


class _Logprobs(msgspec.Struct):
    content: list[Told] | None = None


class Choice(msgspec.Struct):
    """`stop_reason`: the stop string, the number of an end token that is not the first, or None."""

    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def tokens(self) -> list[Told]:
        """What it brings."""
        return (self.logprobs.content or []) if self.logprobs is not None else []

    @property
    def ended(self) -> bool:
        """Whether its last token is the one that ends an answer."""
        return self.finish_reason == "stop" and not isinstance(self.stop_reason, str)


class Fault(msgspec.Struct, frozen=True):
    """An error, in a response's body or in a stream."""

    message: str = ""
    param: str | None = None
    code: int | str | None = None


class Chunk(msgspec.Struct):
    """One event of a stream. `prompt_token_ids`: in the first."""

    choices: list[Choice] = []
    prompt_token_ids: list[int] | None = None
    error: Fault | None = None


class _Refusal(msgspec.Struct):
    error: Fault = Fault()


class _Score(msgspec.Struct):
    logprob: float


class _Scored(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Score] | None]


class _Scores(msgspec.Struct):
    choices: list[_Scored]


_chunks: msgspec.json.Decoder[Chunk] = msgspec.json.Decoder(Chunk)


def number(token: str) -> int:
    """Of a token that is told by its number. Raises DecodeFailed."""
    try:
        return int(token.removeprefix(_ID))
    except ValueError:
        raise DecodeFailed(f"vLLM told the token {token!r} where {_ID}NUMBER was asked for") from None


def request(model: str, messages: Sequence[Mapping[str, str]], options: Options, *, most: int | None) -> dict[str, Any]:
    """The body of a chat completion, always a stream. `most`: tokens that an answer may have."""
    top = options.top_logprobs or 0
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "stream": True,
        "logprobs": True,
        "top_logprobs": top + 1 if top else 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "temperature": 0.0 if options.temperature < GREEDY_BELOW else options.temperature,
        "top_p": max(options.top_p, LEAST_TOP_P),
    }
    limits = [limit for limit in (options.max_tokens, most) if limit is not None]
    if options.max_tokens is not None:
        body["max_tokens"] = min(limits)
    if options.seed is not None:
        body["seed"] = options.seed
    if options.stop:
        body["stop"] = list(options.stop)
    if options.schema:
        schema = json.loads(options.schema) | {"x-guidance": _WHITE_SPACE}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return body


def scoring(model: str, line: Sequence[int], options: Options) -> dict[str, Any]:
    """The body of a completion that tells how likely the free model finds the tokens of `line`."""
    return {"model": model, "prompt": list(line), "max_tokens": 1, "prompt_logprobs": options.top_logprobs or 0}


def scores(body: bytes, line: Sequence[int]) -> list[Told]:
    """What `scoring` has told of each token of `line` but the first. Raises DecodeFailed."""
    try:
        told = msgspec.json.decode(body, type=_Scores).choices[0].prompt_logprobs
        of = [{int(token): score.logprob for token, score in (at or {}).items()} for at in told]
        return [
            Told(
                token=f"{_ID}{token}",
                logprob=at[token],
                top_logprobs=[Alternative(token=f"{_ID}{one}", logprob=logprob) for one, logprob in at.items()],
            )
            for token, at in zip(line[1:], of[1:], strict=True)
        ]
    except (msgspec.MsgspecError, IndexError, KeyError, ValueError) as error:
        raise DecodeFailed(f"vLLM's log probabilities can't be read: {type(error).__name__}") from None


async def chunks(stream: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
    """A response's events, to its end marker. Raises WorkerGone where it ends before that, DecodeFailed."""
    held = b""
    async for data in stream:
        *events, held = (held + data).split(b"\n\n")
        for event in events:
            payload = event.removeprefix(b"data: ").strip()
            if payload == b"[DONE]":
                return
            try:
                yield _chunks.decode(payload)
            except msgspec.MsgspecError as error:
                raise DecodeFailed(f"vLLM's stream can't be read: {error}") from None
    raise WorkerGone("vLLM's stream ended before the answer did")


def fault(body: bytes) -> Fault:
    """What a response that is no answer says; nothing where that can't be read."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error
    except msgspec.MsgspecError:
        return Fault()


def refused(status: int, body: bytes, options: Options) -> EngineError:
    """A response that is no answer, as the engine's own error."""
    return refusal(msgspec.structs.replace(fault(body), code=status), options)


def refusal(told: Fault, options: Options) -> EngineError:
    """An error in a response or in a stream, as the engine's own."""
    if told.code == 404:
        return VersionUnknown()
    if told.code in (502, 503, 504) or "EngineCore" in told.message:
        return WorkerGone()  # the server will end by itself
    if told.code == 429:
        return QueueFull()
    if told.code in (401, 403):
        return WorkerGone(f"the server of this version answered {told.code}")
    if told.code not in (400, 422):
        return DecodeFailed()  # its message may tell of other requests; the server's log has it
    if told.param == "input_tokens" or "maximum context length" in told.message:
        return ContextTooLong(told.message, param="messages")
    if options.schema and ("rammar" in told.message or "schema" in told.message):
        why = told.message.removeprefix("Grammar error: ")
        return InvalidRequest(f"response_format holds a schema that can't be enforced: {why}", param="response_format")
    return InvalidRequest(told.message or None, param=told.param or "messages")
