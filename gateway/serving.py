"""One chat request on its way: who is asked in turn, what the client gets, and what is told of it afterwards."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from collector import refused_by_both
from gateway.attempt import LEAST_SECONDS, Attempt
from gateway.body import Receive, Send
from gateway.capture import Capture, Finished
from gateway.errors import (
    BadStatus,
    Deferred,
    Internal,
    NotMasked,
    UpstreamError,
    UpstreamTimeout,
    openai_event,
    status_of,
)
from gateway.hard_stop import HardStop
from gateway.headers import Pairs, to_client
from gateway.plan import Plan
from gateway.respond import respond
from gateway.shadow import Shadows
from gateway.upstream import Upstream
from router import Arm, Events

log = logging.getLogger("retort.gateway")

PATH = "/v1/chat/completions"
CLIENT_CLOSED_REQUEST = 499  # for the metrics alone: nobody is there to read it


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What serving needs of the worker."""

    upstream: Upstream
    capture: Capture
    shadows: Shadows
    hard_stop: HardStop
    events: Events
    clock: Callable[[], float] = time.time


class Serving:
    """One request. Use: `run`, once."""

    def __init__(self, parts: Parts, plan: Plan, request_id: str, began: float) -> None:
        self.parts = parts
        self.plan = plan
        self.id = request_id
        self.began = began
        self.at = parts.clock()
        self.failed: list[Attempt] = []
        self.deferred: tuple[Attempt, ...] = ()
        self.current: Attempt | None = None
        self.gone = False
        self.started = False
        self.status = CLIENT_CLOSED_REQUEST
        self.ttft: float | None = None
        self.begun: int | None = None
        self.reported = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve, and stop at once when the client leaves; then tell the collector."""
        task = asyncio.current_task()
        watcher = asyncio.create_task(self._watch(receive, task))
        outcome = "cancelled"
        try:
            outcome = await self._serve(send)
        except asyncio.CancelledError:
            if not self.gone:
                raise
            if task is not None:
                task.uncancel()
        except Exception:
            # The edge of a request: whatever went wrong, the client must not wait for ever.
            log.exception("gateway.request_failed", extra={"request_id": self.id})
            outcome, self.status = "internal", 500
            if self.started:
                raise  # the server then breaks the connection off: nothing looks complete
            await respond(send, Internal(), self.id)
        finally:
            if outcome != "ok":
                watcher.cancel()  # else the server wakes it: who listens after the answer hears "disconnect"
            self._finish(outcome)

    async def _watch(self, receive: Receive, task: asyncio.Task[None] | None) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # A server also says "disconnect" to who still listens when the answer is over.
        if task is not None and (self.current is None or self.current.total_ms is None):
            self.gone = True
            task.cancel()

    async def _serve(self, send: Send) -> str:
        attempt = await self._answer()
        if isinstance(attempt, UpstreamError):
            return await self._give_up(attempt, send)
        headers = self._headers(attempt)
        self.status = attempt.status or 200
        self.started = True
        if not attempt.streams:
            headers.append((b"content-length", b"%d" % len(attempt.content)))
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            self._begin()
            await send({"type": "http.response.body", "body": attempt.content})
            return "ok" if self.status < 400 else "client_error"
        self.ttft = time.perf_counter() - self.began
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        return await self._relay(attempt, send)

    async def _answer(self) -> Attempt | UpstreamError:
        """The first attempt that gave something; or the last one's error.

        An answer of the student that was deferred is never used, also where then every teacher fails: to serve what
        the student isn't sure of would break the bound on its risk, and an outage is seen and tried again.
        """
        deadline = self.began + self.plan.route.deadline
        error: UpstreamError | None = None
        for callee in self.plan.callees:
            seconds = callee.timeout
            if error is not None:
                seconds = min(seconds, deadline - time.perf_counter())
                if seconds <= 0:
                    break
                self._fell_back(error)
            elif self.deferred:
                seconds = min(seconds, max(deadline - time.perf_counter(), LEAST_SECONDS))
            decision = self.plan.decision
            threshold = decision.threshold if callee.version is not None else None
            audited = any(shadow.arm is Arm.TEACHER for shadow in decision.shadows)
            attempt = self.current = Attempt(callee, threshold=threshold, audited=audited)
            self.parts.hard_stop.calling(callee.version)
            try:
                await attempt.begin(self.parts.upstream, self.plan.outgoing(callee), seconds=seconds)
            except Deferred:
                self.parts.hard_stop.answers(callee.version)
                self.deferred = (attempt,)
                self.parts.events.emit("gateway.deferred", route=self.plan.route.name, version=callee.version)
                continue
            except UpstreamError as failure:
                error = failure
                self._missed(attempt, failure)
                if isinstance(failure, NotMasked):
                    break  # nor would the next teacher be sent anything
                continue
            self.parts.hard_stop.answers(callee.version)
            return attempt
        return error or UpstreamTimeout()

    def _missed(self, attempt: Attempt, error: UpstreamError) -> None:
        self.failed.append(attempt)
        callee = attempt.callee
        self.parts.hard_stop.over(attempt)
        told = {"request_id": self.id, "route": self.plan.route.name, "error": error.constant}
        log.warning("gateway.attempt_failed", extra={**told, "callee": callee.version or callee.upstream})

    async def _relay(self, attempt: Attempt, send: Send) -> str:
        try:
            piece = attempt.content or await attempt.piece()
            while piece:
                if self.parts.capture.spools and attempt.complete:
                    self._begin()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await attempt.piece()
        except UpstreamError as error:
            # Nothing is retried after the first byte. The client is told, and gets no end marker.
            log.warning(
                "gateway.stream_cut",
                extra={"request_id": self.id, "route": self.plan.route.name, "error": error.constant},
            )
            await send({"type": "http.response.body", "body": openai_event(error)})
            return "cut"
        self._begin()
        await send({"type": "http.response.body", "body": b""})
        return "ok" if attempt.error is None else "cut"

    async def _give_up(self, error: UpstreamError, send: Send) -> str:
        """No callee answered: a teacher's refusal to take requests now goes on as it is, anything else as our error."""
        last = self.failed[-1]
        self.started = True
        if isinstance(error, BadStatus) and last.content:
            self.status = error.status
            headers = [*self._headers(last), (b"content-length", b"%d" % len(last.content))]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": last.content})
        else:
            self.status = status_of(error)
            retry = [pair for pair in to_client(last.headers) if pair[0].startswith(b"retry-after")]
            await respond(send, error, self.id, headers=retry)
        return "upstream_error"

    def _headers(self, attempt: Attempt) -> Pairs:
        teacher = attempt.callee.arm is Arm.TEACHER
        headers = to_client(attempt.headers) if teacher else _content_type(attempt)
        headers.append((b"x-retort-request-id", self.id.encode()))
        headers.append((b"x-retort-served-by", attempt.callee.name.encode()))
        return headers

    def _fell_back(self, error: UpstreamError) -> None:
        arm = self.failed[-1].callee.arm
        self.parts.events.emit("gateway.fallback", route=self.plan.route.name, arm=arm, error=error.constant)

    def _finish(self, outcome: str) -> None:
        """Everything that the answer did not have to wait for. It is over, or nobody waits for it any more."""
        attempt = self.current
        if attempt is None:
            return
        attempt.end("cancelled")
        seconds = time.perf_counter() - self.began
        before = self.failed
        if before and before[-1] is attempt:  # nobody answered
            before = before[:-1]
        self._count(before, attempt)
        self._told(attempt, outcome, seconds)
        if self.reported:
            return
        done = self._finished(attempt, before, seconds)
        # Without an answer there is nothing to compare with.
        if self.plan.shadows and outcome == "ok":
            besides = self.plan.besides(attempt.callee, deferred=self.deferred)
            self.parts.shadows.start(done, besides, self.plan.again)
        else:
            for answer in self.deferred:
                if answer.open:
                    answer.drop()
            self.parts.capture.report(done)

    def _begin(self) -> None:
        """The client is about to have its whole answer: from now on the exchange survives this process. Where there is
        no more to know of it, it is told of now."""
        attempt = self.current
        if not self.parts.capture.spools or self.begun is not None or self.reported or attempt is None:
            return
        done = self._finished(attempt, self.failed, time.perf_counter() - self.began)
        if attempt.callee.arm is Arm.TEACHER and not self.plan.shadows and not self.deferred:
            self.parts.capture.report(done)
            self.reported = True
        else:
            self.begun = self.parts.capture.begin(done)

    def _finished(self, attempt: Attempt, before: list[Attempt], seconds: float) -> Finished:
        return Finished(
            id=self.id,
            at=self.at,
            path=PATH,
            decision=self.plan.decision,
            cluster=self.plan.cluster,
            stream=self.plan.body.stream,
            consent=self.plan.consent,
            subject=self.plan.subject,
            request=self.plan.body.raw,
            served=attempt,
            failed=before,
            deferred=self.deferred,
            begun=self.begun,
            ttft_ms=None if self.ttft is None else self.ttft * 1000.0,
            total_ms=seconds * 1000.0,
        )

    def _count(self, before: list[Attempt], last: Attempt) -> None:
        """Tell the hard stop. A deferral is none of its business: the engine has answered, and as it should."""
        decision = self.plan.decision
        if last not in self.failed:
            self.parts.hard_stop.over(last)
        for tried in (*before, last):
            version = tried.callee.version
            if version is None or tried.along or tried.error == "cancelled":
                continue
            if tried is last or not refused_by_both(tried.status, last.status):
                self.parts.hard_stop.count(
                    decision.route, version, decision.rollout_revision, failed=tried.error is not None
                )

    def _told(self, attempt: Attempt, outcome: str, seconds: float) -> None:
        self.parts.events.emit(
            "gateway.request",
            route=self.plan.route.name,
            arm=attempt.callee.arm,
            version=attempt.callee.version,
            status=self.status,
            stream=self.plan.body.stream,
            outcome=outcome,
            seconds=seconds,
            ttft_seconds=self.ttft,
        )


def _content_type(attempt: Attempt) -> Pairs:
    return [(b"content-type", attempt.headers.get("content-type", "application/json").encode("latin-1"))]
