"""What can go wrong in an engine, and the HTTP status and OpenAI shape of each.

EngineError
├── InvalidRequest     the request can't be read, or asks for what a student can't do: 400
│   └── ContextTooLong the prompt leaves no room for an answer: 400
├── UnknownVersion     the version isn't served here: 404
├── TooLarge           the body is above the limit: 413
├── QueueFull          too many requests wait already: 503, may be retried
├── WorkerGone         the version's process ended: 502 (so that it is told from a full queue), may be retried
├── NoRoom             a version would take more memory than there is, or the engine may; may be retried
├── Unfit              this engine, as it is configured or installed, can't serve a version; may be retried
├── DecodeFailed       the runtime failed: 500
├── NotReady           a version can't be loaded, or fails its probes; not worth retrying with the same files
└── CannotListen       the address can't be listened on
"""

from typing import Any

import msgspec


class EngineError(Exception):
    """The engine failed; its log says why."""

    retryable = False
    status = 500
    kind = "server_error"
    code: str = "internal_error"

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message or self.__doc__)
        self.param = param


class InvalidRequest(EngineError):
    """The request is not valid."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    """The prompt leaves no room for an answer."""

    code = "context_length_exceeded"


class UnknownVersion(EngineError):
    """This version is not served here."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class TooLarge(EngineError):
    """The request's body is too large."""

    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class QueueFull(EngineError):
    """Too many requests wait for this version; try again in a moment."""

    retryable = True
    status = 503
    code = "queue_full"


class WorkerGone(EngineError):
    """The process that serves this version has ended."""

    retryable = True
    status = 502
    code = "worker_gone"


class VersionUnknown(WorkerGone):
    """The server that answered for this version doesn't know it any more."""


class NoRoom(EngineError):
    """There is no memory left for this version; `lacks`: how many bytes of it, 0 where that isn't known."""

    retryable = True
    lacks = 0.0


class Unfit(EngineError):
    """This engine, as it is, can't serve this version: another configuration, or installation, may."""

    retryable = True


class DecodeFailed(EngineError):
    """The runtime failed on this request; the engine's log says why."""

    code = "decode_failed"


class NotReady(EngineError):
    """The version can't be served."""


class CannotListen(EngineError):
    """The engine's address can't be listened on."""


def openai_body(error: EngineError) -> bytes:
    """The error in OpenAI's shape, as JSON: {"error": {message, type, param, code}}."""
    body: dict[str, Any] = {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": body})
