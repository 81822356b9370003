"""What the engine and a worker process say to each other: MessagePack structs behind a 32-bit big-endian length."""

import struct

import msgspec

LENGTH = struct.Struct("!I")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to decode one answer.

    `max_tokens`: None for as many as the context holds. `temperature`: 0 is greedy. `seed`: None for a fresh one.
    `top_logprobs`: how many alternatives to report for each token; None reports no token at all. `assess`: nothing of
    the answer is sent before its beginning has been assessed. `schema`: a JSON Schema (as JSON) that the answer must
    fit; "" for any text.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    assess: bool = False
    schema: str = ""


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Answer these messages. `at`: when it was sent, in seconds of the machine's monotonic clock."""

    id: int
    messages: list[dict[str, str]]
    options: Options
    at: float


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """A vector for each text. `truncate`: whether a text that is too long is cut, or refused."""

    id: int
    texts: list[str]
    truncate: bool
    at: float


class Rank(msgspec.Struct, frozen=True, kw_only=True, tag="rank"):
    """A score for each document: how well it answers the query. `truncate`: of documents, likewise."""

    id: int
    query: str
    documents: list[str]
    truncate: bool
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
    """The worker's first message: it can answer. `does`: what may be asked of it: generate | embed | rank.
    `dimensions`: all of a vector, then those to which it may be cut; `unit`: whether it is of unit length."""

    does: str = "generate"
    dimensions: tuple[int, ...] = ()
    unit: bool = True


class Unloadable(msgspec.Struct, frozen=True, tag="unloadable"):
    """The worker's only message, where it can't load the artefact. `lacks`: what it might with: memory | package; ""
    where the artefact itself can't be loaded."""

    reason: str
    lacks: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Decoding begins. `queue_seconds`: None where the runtime doesn't tell how long it has waited."""

    id: int
    prompt_tokens: int
    queue_seconds: float | None


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
    answer, in [0, 1]; 0 where the input is unlike the training set. `batch`: how many requests shared its passes, on
    average; None where nothing tells."""

    id: int
    finish_reason: str
    completion_tokens: int
    confidence: float
    reasoning_tokens: int = 0
    batch: float | None = None


class Vectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors"):
    """The answer to Embed. `vectors`: [texts, dimensions], float32, little-endian. `tokens`: that were read.
    `batch`: how many requests shared its passes, on average."""

    id: int
    vectors: bytes
    tokens: int
    queue_seconds: float
    batch: float


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """The answer to Rank, in the documents' order. `tokens`: that were read, the query's with each document.
    `batch`: see Vectors."""

    id: int
    scores: list[float]
    tokens: int
    queue_seconds: float
    batch: float


class Working(msgspec.Struct, frozen=True, tag="working"):
    """Requests wait, and a turn has ended since the last word: nothing hangs."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """No (further) answer. `code`: context_length_exceeded | invalid_request | queue_full | decode_failed | cancelled.
    `param`: what of the request was wrong; by default its messages, where it was the request."""

    id: int
    code: str
    message: str
    param: str | None = None


Order = Generate | Cancel  # of a worker that generates
Encode = Embed | Rank
Event = Started | Assessed | Piece | Done | Vectors | Scores | Refused
Report = Loaded | Unloadable | Working | Event

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order | Encode] = msgspec.msgpack.Decoder(Order | Encode)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def pack(message: Order | Encode | Report) -> bytes:
    """A message with its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def order(body: bytes) -> Order | Encode:
    """Decode what the engine sent. Raises msgspec.ValidationError."""
    return _orders.decode(body)


def report(body: bytes) -> Report:
    """Decode what a worker sent. Raises msgspec.ValidationError."""
    return _reports.decode(body)
