"""POST /v1/feedback: what a client reports of an answer that it got, handed on to the collector."""

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from collector import REPORTED, Feedback
from gateway.body import ClientGone, Receive, Scope, Send, read
from gateway.capture import Sender, consent
from gateway.errors import GatewayError, Internal, InvalidRequest, Overloaded, WrongMethod
from gateway.respond import respond, respond_json
from gateway.routes import Route, Routes
from router import Events

log = logging.getLogger("retort.gateway")

FEEDBACK_PATH = "/v1/feedback"
MAX_BYTES = 64 << 10
_KEYS = ("request_id", "outcome", "truth", "model")
_REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")
_ACCEPTED = b'{"accepted":true}'

_body = msgspec.json.Decoder(dict[str, Any])


class Report(msgspec.Struct, frozen=True):
    """A client's feedback, checked. `outcome`: in [0, 1]; `truth`: the right answer; at least one of them is there."""

    request_id: str
    outcome: float | None
    truth: str | None
    model: str | None


def parse_report(raw: bytes) -> Report:
    """Read a feedback's body. Raises InvalidRequest, which names the key that is wrong and what would be right."""
    try:
        top = _body.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The feedback is not a JSON object that can be read: {error}") from error
    for key in top:
        if key not in _KEYS:
            shown = key if len(key) <= 100 else key[:100] + "..."
            raise InvalidRequest(f"Feedback has no key {shown!r}; it has: {', '.join(_KEYS)}.")
    model = top.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest('"model" must be a string: the name that the request asked for.', param="model")
    report = Report(_request_id(top), _outcome(top), _truth(top), model)
    if report.outcome is None and report.truth is None:
        raise InvalidRequest('The feedback says nothing: give "outcome", "truth" or both.', param="outcome")
    return report


def _request_id(top: dict[str, Any]) -> str:
    value = top.get("request_id")
    if value is None:
        raise InvalidRequest(
            '"request_id" is missing; it is the x-retort-request-id header of the answer.', param="request_id"
        )
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise InvalidRequest(
            '"request_id" must be the x-retort-request-id header of an answer: req_ and 24 hex digits.',
            param="request_id",
        )
    return value


def _outcome(top: dict[str, Any]) -> float | None:
    value = top.get("outcome")
    if value is None:
        return None
    if not isinstance(value, bool | int | float) or not 0.0 <= value <= 1.0:
        raise InvalidRequest('"outcome" must be a number from 0 (bad) to 1 (good), or a boolean.', param="outcome")
    return float(value)


def _truth(top: dict[str, Any]) -> str | None:
    value = top.get("truth")
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            '"truth" must be a string that is not empty: the right answer, or a whole assistant message as JSON in it.',
            param="truth",
        )
    return value


class FeedbackIn:
    """The endpoint. 202 says that the report is on its way to the collector, which alone knows whether there was such a
    request."""

    def __init__(
        self, routes: Routes, sender: Sender, events: Events, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._routes = routes
        self._sender = sender
        self._events = events
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one feedback."""
        try:
            if scope["method"] != "POST":
                raise WrongMethod(f"{FEEDBACK_PATH} answers to POST, not to {scope['method']}.")
            report = parse_report(await read(scope, receive, limit=MAX_BYTES))
            self._hand_on(report, self._route(report), dict(scope["headers"]))
        except ClientGone:
            return
        except (InvalidRequest, Overloaded) as error:
            await self._refuse(send, error)
            return
        except Exception:
            log.exception("gateway.feedback_failed")  # the edge of a request
            await self._refuse(send, Internal())
            return
        self._events.emit("gateway.feedback", outcome="accepted")
        await respond_json(send, 202, _ACCEPTED)

    async def _refuse(self, send: Send, error: GatewayError) -> None:
        self._events.emit("gateway.feedback", outcome="refused")
        await respond(send, error)

    def _route(self, report: Report) -> Route:
        if report.model is not None:
            return self._routes.find(report.model)
        if self._routes.only is None:
            raise InvalidRequest(
                f'"model" is missing: there are several routes; known are: {", ".join(self._routes.models)}.',
                param="model",
            )
        return self._routes.only

    def _hand_on(self, report: Report, route: Route, headers: Mapping[bytes, bytes]) -> None:
        truth = b"" if report.truth is None else report.truth.encode()
        policy = route.policy.capture
        header = Feedback(
            id=f"{REPORTED}{secrets.token_hex(12)}",
            at=self._clock(),
            route=route.name,
            request_id=report.request_id,
            outcome=report.outcome,
            truth_bytes=len(truth),
            capture=policy.right_answers and consent(policy, report.request_id, headers) is not None,
        )
        if not self._sender.send(header, truth):
            raise Overloaded
