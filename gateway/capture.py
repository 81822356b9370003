"""What the collector is told of an exchange: a frame with the raw bytes, built after the answer, never awaited."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Protocol

import msgspec

from collector import Exchange, Header
from gateway.attempt import KEEP_BYTES, Attempt
from router import CapturePolicy, ConsentKeys, Decision, Events

CONSENT_HEADER = b"x-retort-consent"
SUBJECT_HEADER = b"x-retort-subject"


class Sender(Protocol):
    """Where frames go; collector.send.FrameSender is the real one."""

    def send(self, header: Header, *bodies: bytes, begun: int | None = None) -> bool:
        """Never blocks or raises; False when the frame was dropped."""

    @property
    def spools(self) -> bool:
        """Whether frames survive this process."""

    @property
    def crowded(self) -> bool:
        """Whether there soon is no room for frames."""

    def begin(self, header: Header, *bodies: bytes) -> int | None:
        """Keep an exchange that is answered, but not over, for a successor; None where it was not kept."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange whose answer is over. Its shadows may still be running.

    `at`: Unix seconds when the request came. `consent`: what `consent` said. `subject`: whose data it is, as the client
    named it. `deferred`: a student's answer that was deferred, at most one; it is told of among the shadows. `begun`:
    what `Capture.begin` said of it. Times in milliseconds, as the client saw them.
    """

    id: str
    at: float
    path: str
    decision: Decision
    cluster: str
    stream: bool
    consent: str | None
    subject: str | None
    request: bytes
    served: Attempt
    failed: Sequence[Attempt]
    deferred: Sequence[Attempt] = ()
    begun: int | None = None
    ttft_ms: float | None
    total_ms: float


def consent(policy: CapturePolicy, request_id: str, headers: Mapping[bytes, bytes]) -> str | None:
    """Why an exchange's texts may be kept: opt-out, or what said yes, key or header; None where they may not, also by
    the rate, which draws by request id. One no is enough."""
    by_header = headers.get(CONSENT_HEADER, b"").strip().lower()
    by_key = _by_key(policy.consent_keys, headers.get(b"authorization", b""))
    if by_header == b"no" or by_key == "no":
        return None
    given = "header" if by_header == b"yes" else "key" if by_key == "yes" else None
    if given is None and policy.consent == "opt-in":
        return None
    if policy.rate < 1.0:
        drawn = int.from_bytes(blake2b(request_id.encode(), digest_size=8, person=b"capture").digest(), "big")
        if drawn >= policy.rate * 2.0**64:
            return None
    return given or policy.consent


def _by_key(keys: ConsentKeys, authorization: bytes) -> str | None:
    if not (keys.yes or keys.no):
        return None
    name = sha256(authorization.removeprefix(b"Bearer ")).hexdigest()
    return "no" if name in keys.no else "yes" if name in keys.yes else None


class Capture:
    """Builds the frames."""

    def __init__(self, sender: Sender, events: Events) -> None:
        self._sender = sender
        self._events = events

    @property
    def spools(self) -> bool:
        """Whether exchanges are to be begun."""
        return self._sender.spools

    def begin(self, done: Finished) -> int | None:
        """The client is about to have its whole answer: should this process be killed from now on, the exchange still
        goes to the collector, without its shadows."""
        header, bodies, _ = self._frame(done, ())
        return self._sender.begin(header, *bodies)

    def report(self, done: Finished, shadows: Sequence[Attempt] = ()) -> None:
        """Hand an exchange to the collector."""
        header, bodies, skipped = self._frame(done, shadows)
        if skipped is not None:
            self._events.emit("gateway.capture_skipped", route=done.decision.route, reason=skipped)
        self._sender.send(header, *bodies, begun=done.begun)

    def _frame(self, done: Finished, shadows: Sequence[Attempt]) -> tuple[Exchange, list[bytes], str | None]:
        """The header and its bodies; and why texts were left out that might have been kept.

        Texts go along where they may be kept, and where a pair is to be scored (which happens in memory). An exchange
        with a text too large is reported without any; so is one without a pair, while the sender is crowded.
        """
        capture = done.consent is not None
        if done.deferred:
            shadows = (*done.deferred, *shadows)
        kept = [shadow.kept for shadow in shadows]
        skipped = None
        if len(done.request) > KEEP_BYTES or done.served.too_large:
            skipped = "too_large"
        elif capture and self._sender.crowded and not shadows:
            skipped = "crowded"
        if skipped is not None:
            capture, bodies = False, [b"", b"", *(b"" for _ in kept)]
        elif capture or any(kept):
            bodies = [done.request, done.served.kept, *kept]
        else:
            bodies = [b"", b"", *kept]
        header = Exchange(
            id=done.id,
            at=done.at,
            path=done.path,
            decision=done.decision,
            cluster=done.cluster,
            stream=done.stream,
            capture=capture,
            consent=done.consent or "",
            subject=done.subject,
            request_bytes=len(bodies[0]),
            served=done.served.call(len(bodies[1])),
            failed=tuple([attempt.call() for attempt in done.failed]) if done.failed else (),
            shadows=tuple([s.call(len(b)) for s, b in zip(shadows, bodies[2:], strict=True)]) if shadows else (),
            ttft_ms=done.ttft_ms,
            total_ms=done.total_ms,
        )
        return header, bodies, skipped
