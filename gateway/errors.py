"""What can go wrong in the gateway, and the one table that says which HTTP status a client sees for it.

GatewayError
├── InvalidRequest      the client's request is wrong; sending it again would not help
│   ├── UnknownModel    no route has this name or claims it
│   ├── NotFound        no such path
│   ├── WrongMethod     the path exists, the method does not
│   └── TooLarge        the body is larger than the gateway takes
├── UpstreamError       an upstream gave no usable answer; another one may be asked
│   ├── ConnectFailed   no connection
│   ├── UpstreamTimeout no answer, or no further byte, in time
│   ├── BadStatus       an answer with a status that is no answer
│   ├── EmptyAnswer     an answer without content
│   ├── ErrorInStream   the stream's first event was an error
│   ├── Cut             the connection ended in the middle of the answer
│   └── NotMasked       the request could not be masked, so no teacher was asked
│       ├── MaskingUnavailable  nobody masks just now
│       └── Unmaskable          the request holds what can't be masked
├── Deferred            a student is not sure enough of its answer; the teacher is asked, and no client sees this
├── Overloaded          what came can't be kept just now; sending it again later helps
├── Internal            a defect of the gateway
└── CannotListen        the address can't be listened on; starting again would not help
    └── PortInUse       the port is taken
"""

from typing import Any

import msgspec


class GatewayError(Exception):
    """An error of the gateway."""

    retryable = False
    code: str | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class InvalidRequest(GatewayError):
    """The request is not valid."""

    code = "invalid_request"

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModel(InvalidRequest):
    """No route serves this model."""

    code = "model_not_found"


class NotFound(InvalidRequest):
    """There is nothing at this path."""

    code = "not_found"


class WrongMethod(InvalidRequest):
    """This path does not answer to this method."""

    code = "method_not_allowed"


class TooLarge(InvalidRequest):
    """The request's body is too large."""

    code = "request_too_large"


class UpstreamError(GatewayError):
    """An upstream gave no usable answer. `constant`: the short name that calls and metrics carry."""

    retryable = True
    constant = "upstream"

    @property
    def code(self) -> str:  # type: ignore[override]
        """The constant, for the client."""
        return f"upstream_{self.constant}"


class ConnectFailed(UpstreamError):
    """No connection to the upstream could be made."""

    constant = "connect"


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time."""

    constant = "timeout"


class BadStatus(UpstreamError):
    """The upstream answered with an error status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The upstream answered with status {status}.")
        self.status = status
        self.constant = f"http_{status}"


class EmptyAnswer(UpstreamError):
    """The upstream's answer was empty."""

    constant = "empty"


class ErrorInStream(UpstreamError):
    """The upstream's stream began with an error."""

    constant = "stream_error"


class Cut(UpstreamError):
    """The upstream's answer broke off."""

    constant = "cut"


class NotMasked(UpstreamError):
    """The request could not be masked, so no teacher was asked."""

    @property
    def code(self) -> str:  # type: ignore[override]
        """The constant: no upstream is to blame."""
        return self.constant


class MaskingUnavailable(NotMasked):
    """This route masks what goes to a teacher, and just now nothing can be masked; send it again later."""

    constant = "masking_unavailable"


class Unmaskable(NotMasked):
    """This route masks what goes to a teacher, and can't mask this request."""

    retryable = False
    constant = "unmaskable"


class Deferred(GatewayError):
    """The student is not sure enough of its answer."""

    retryable = True
    code = "deferred"


class Overloaded(GatewayError):
    """The gateway can't keep this just now; send it again later."""

    retryable = True
    code = "overloaded"


class Internal(GatewayError):
    """The gateway failed; its log says why."""

    code = "internal_error"


class CannotListen(GatewayError):
    """The address can't be listened on."""


class PortInUse(CannotListen):
    """The port to listen on is taken."""


# The first class that fits decides, so subclasses stand before their parents.
STATUS: tuple[tuple[type[GatewayError], int], ...] = (
    (UnknownModel, 404),
    (NotFound, 404),
    (WrongMethod, 405),
    (TooLarge, 413),
    (InvalidRequest, 400),
    (UpstreamTimeout, 504),
    (Unmaskable, 400),
    (MaskingUnavailable, 503),
    (UpstreamError, 502),
    (Overloaded, 503),
    (GatewayError, 500),
)

_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 405: "invalid_request_error"}
_TYPES |= {413: "invalid_request_error", 500: "server_error", 503: "server_error"}
_TYPES |= {502: "upstream_error", 504: "upstream_error"}


def status_of(error: GatewayError) -> int:
    """The HTTP status of an error, from the table."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def as_openai(error: GatewayError) -> dict[str, Any]:
    """The error in OpenAI's shape: {"error": {message, type, param, code}}."""
    return {
        "error": {
            "message": str(error),
            "type": _TYPES[status_of(error)],
            "param": getattr(error, "param", None),
            "code": error.code,
        }
    }


def openai_body(error: GatewayError) -> bytes:
    """The error in OpenAI's shape, as JSON."""
    return msgspec.json.encode(as_openai(error))


def openai_event(error: GatewayError) -> bytes:
    """The error as a server-sent event, which OpenAI's clients raise as an exception."""
    return b"data: " + openai_body(error) + b"\n\n"
