"""What the engine and a worker process say to each other: MessagePack structs behind a 32-bit big-endian length."""

import struct

import msgspec

LENGTH = struct.Struct("!I")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to decode one answer.

    `max_tokens`: None for as many as the context holds. `temperature`: 0 is greedy. `seed`: None for a fresh one.
    `top_logprobs`: how many alternatives to report for each token; None reports no token at all. `stepwise`: one
    token a pass and no drafts, as golden answers were recorded. `assess`: nothing of the answer is sent before its
    beginning has been assessed. `schema`: a JSON Schema (as JSON) that the answer must fit; "" for any text.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    stepwise: bool = False
    assess: bool = False
    schema: str = ""


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Answer these messages. `at`: when it was sent, in seconds of the machine's monotonic clock."""

    id: int
    messages: list[dict[str, str]]
    options: Options
    at: float


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody waits for this answer any more."""

    id: int


class Alternative(msgspec.Struct, frozen=True):
    """A token that could have stood here. `bytes`: exactly; `text` replaces what is no UTF-8 by itself."""

    text: str
    bytes: bytes
    logprob: float


class Token(msgspec.Struct, frozen=True):
    """A generated token, its log probability (natural, temperature 1) and the likeliest alternatives."""

    id: int
    text: str
    bytes: bytes
    logprob: float
    top: tuple[Alternative, ...] = ()


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """The worker's first message: it can answer. `seconds`: that loading took; `context_length`: in tokens, None where
    a prompt may have any length."""

    seconds: float
    context_length: int | None = None


class Unloadable(msgspec.Struct, frozen=True, tag="unloadable"):
    """The worker's only message, where it can't load the artefact. `again`: another time it might."""

    reason: str
    again: bool = False


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Decoding begins."""

    id: int
    prompt_tokens: int
    queue_seconds: float


class Assessed(msgspec.Struct, frozen=True, kw_only=True, tag="assessed"):
    """How sure the student is by the answer's beginning, in [0, 1]; comes before the first Piece."""

    id: int
    confidence: float


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag="piece"):
    """The answer's next text, whole characters only, and its tokens where they were asked for. `reasoning`: what is
    thought before it; of that no token is told."""

    id: int
    text: str
    tokens: tuple[Token, ...] = ()
    reasoning: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The answer is complete. `completion_tokens`: all that were decoded, the end token and those of a stop string
    included; `reasoning_tokens`: those of them that are of the thinking and its marks. `confidence`: of the whole
    answer, in [0, 1]; 0 where the input is unlike the training set."""

    id: int
    finish_reason: str
    completion_tokens: int
    confidence: float
    reasoning_tokens: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """No (further) answer. `code`: context_length_exceeded | invalid_request | decode_failed | cancelled. `param`: what
    of the request was wrong; by default its messages, where it was the request."""

    id: int
    code: str
    message: str
    param: str | None = None


Order = Generate | Cancel
Event = Started | Assessed | Piece | Done | Refused
Report = Loaded | Unloadable | Event

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def pack(message: Order | Report) -> bytes:
    """A message with its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def order(body: bytes) -> Order:
    """Decode what the engine sent. Raises msgspec.ValidationError."""
    return _orders.decode(body)


def report(body: bytes) -> Report:
    """Decode what a worker sent. Raises msgspec.ValidationError."""
    return _reports.decode(body)
