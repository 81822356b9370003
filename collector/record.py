"""The scrubbed record of one exchange, as it stands in the log. Old schema numbers stay readable."""

from typing import Any

import msgspec

from router.decision import Arm


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the upstream counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream's answer. `message`: the assistant message ({role, content, tool_calls, ...}), scrubbed;
    a stream's deltas reassembled. None where no answer could be read. `deferred`: a student's, in whose place the
    teacher answered."""

    arm: Arm
    version: str | None = None
    upstream: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    message: dict[str, Any] | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    confidence: float | None = None
    deferred: bool = False


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. `request`: the client's body, scrubbed. `answers`: the served one first, then the shadows;
    `failed`: the attempts before it, without any words.

    `arm`, `version`, `propensity`: as decided; after a fallback another arm served. `cluster`: hashed conversation
    key. `scrubber`: version of the scrubber and its settings. `source`: of an exchange that another system logged, the
    format it was imported from; empty for this gateway's own traffic.
    """

    schema: int = 1
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
    stream: bool
    request: dict[str, Any]
    answers: tuple[Answer, ...]
    failed: tuple[Answer, ...] = ()
    source: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Interaction] = msgspec.msgpack.Decoder(Interaction)


def encode(record: Interaction) -> bytes:
    """MessagePack."""
    return _encoder.encode(record)


def decode(data: bytes) -> Interaction:
    """Inverse of encode; unknown newer fields are passed over. Raises msgspec.ValidationError."""
    return _decoder.decode(data)
