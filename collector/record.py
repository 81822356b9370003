"""The scrubbed record of one exchange, and of the right answer to it, as they stand in the log. What was ever written
stays readable.

schema 1: MessagePack of an Interaction
schema 2: 1, then zstd of it; or, sealed with its subject's key: 2, a nonce (12), AES-256-GCM of that
"""

import secrets
from typing import Any, TypeVar

import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from collector.errors import RecordUnreadable
from router.decision import Arm

T = TypeVar("T")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the upstream counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """One token of an answer as an API tells it. `logprob`: natural. `top`: what it might have said instead, with
    their log probabilities, its own choice included where the API lists it."""

    token: str
    logprob: float
    top: dict[str, float] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream's answer. `message`: the assistant message ({role, content, tool_calls, ...}), scrubbed;
    a stream's deltas reassembled. None where no answer could be read. `reasoning`: the thinking before it, scrubbed,
    where it was shown and may be kept; the message never holds it. `deferred`: a student's, in whose place the
    teacher answered. `logprobs`: the message's tokens, where the client asked for them and scrubbing changed nothing of
    the exchange; else empty."""

    arm: Arm
    version: str | None = None
    upstream: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    message: dict[str, Any] | None = None
    reasoning: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    confidence: float | None = None
    deferred: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. `request`: the client's body, scrubbed. `answers`: the served one first, then the shadows;
    `failed`: the attempts before it, without any words.

    `arm`, `version`, `propensity`: as decided; after a fallback another arm served. `answered`: the probability that
    the teacher was asked for an answer, whichever arm was drawn. `cluster`: hashed conversation key. `subject`:
    hashed, whose data it is; "" where nobody said. `consent`: why it may be kept (opt-out, or what said yes:
    header, key). `scrubber`: version of the scrubber and its settings. `source`: of an exchange that another system
    logged, the format it was imported from; empty for this gateway's own traffic. `drawn`: which surrogates its
    texts have, see collector.scrubbed.Beside; None where no right answer is kept beside it.
    """

    schema: int = 2
    id: str
    at: float
    route: str
    kind: str
    arm: Arm
    version: str | None
    propensity: float
    eligible: bool
    policy_version: str
    rollout_revision: int
    consent: str
    scrubber: str
    cluster: str
    subject: str = ""
    stream: bool
    request: dict[str, Any]
    answers: tuple[Answer, ...]
    failed: tuple[Answer, ...] = ()
    source: str = ""
    drawn: dict[str, int] | None = None
    answered: float | None = None


class RightAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client reported to be right. `message`: an assistant message as an Answer's, scrubbed beside the record of
    the request."""

    request_id: str
    at: float
    message: dict[str, Any]
    scrubber: str


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Interaction] = msgspec.msgpack.Decoder(Interaction)
_right: msgspec.msgpack.Decoder[RightAnswer] = msgspec.msgpack.Decoder(RightAnswer)


_PLAIN, _SEALED = b"\x01", b"\x02"
_NONCE_BYTES = 12
_LEVEL = 3


def encode(record: Interaction | RightAnswer, key: bytes | None = None) -> bytes:
    """The bytes for the log; sealed with `key` (32 bytes) where one is given."""
    packed = _PLAIN + zstandard.ZstdCompressor(level=_LEVEL).compress(_encoder.encode(record))
    if key is None:
        return packed
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _SEALED + nonce + AESGCM(key).encrypt(nonce, packed, None)


def sealed(data: bytes) -> bool:
    """Whether decode needs a key."""
    return data[:1] == _SEALED


def decode(data: bytes, key: bytes | None = None) -> Interaction:
    """Inverse of encode; unknown newer fields are passed over. Raises RecordUnreadable."""
    return _decoded(data, key, _decoder)


def decode_right(data: bytes, key: bytes | None = None) -> RightAnswer:
    """As `decode`, of a right answer."""
    return _decoded(data, key, _right)


def _decoded(data: bytes, key: bytes | None, decoder: msgspec.msgpack.Decoder[T]) -> T:
    try:
        if sealed(data):
            if key is None:
                raise RecordUnreadable("a sealed record can't be read without its subject's key")
            nonce, rest = data[1 : 1 + _NONCE_BYTES], data[1 + _NONCE_BYTES :]
            data = AESGCM(key).decrypt(nonce, rest, None)
        if data[:1] == _PLAIN:
            data = zstandard.ZstdDecompressor().decompress(data[1:])
        return decoder.decode(data)
    except (InvalidTag, zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise RecordUnreadable(f"a record of the log can't be read: {type(error).__name__}: {error}") from error
