"""POST /v1/chat/completions, a plain ASGI endpoint: it is the hot path, and a framework would double its cost."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from collector import refused_by_both
from gateway.attempt import Attempt
from gateway.body import ClientGone, Receive, Scope, Send, parse, read
from gateway.capture import Capture, Finished
from gateway.errors import (
    BadStatus,
    GatewayError,
    Internal,
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
    WrongMethod,
    openai_body,
    openai_event,
    status_of,
)
from gateway.hard_stop import HardStop
from gateway.headers import Pairs, to_client
from gateway.plan import Plan, Planner
from gateway.shadow import Shadows
from gateway.upstream import Upstream
from router import Arm, Events

log = logging.getLogger("retort.gateway")

PATH = "/v1/chat/completions"
CLIENT_CLOSED_REQUEST = 499  # for the metrics alone: nobody is there to read it


class Chat:
    """The endpoint. All that it needs is passed in; it keeps nothing of a request."""

    def __init__(
        self,
        planner: Planner,
        upstream: Upstream,
        *,
        capture: Capture,
        shadows: Shadows,
        hard_stop: HardStop,
        events: Events,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.planner = planner
        self.upstream = upstream
        self.capture = capture
        self.shadows = shadows
        self.hard_stop = hard_stop
        self.events = events
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.perf_counter()
        request_id = f"req_{secrets.token_hex(12)}"
        try:
            if scope["method"] != "POST":
                raise WrongMethod(f"{PATH} answers to POST, not to {scope['method']}.")
            body = parse(await read(scope, receive), whole_up_to=self.planner.whole_up_to)
            plan = self.planner.plan(request_id, scope, body)
        except ClientGone:
            return
        except InvalidRequest as error:
            await respond(send, error, request_id)
            self._refused(error, began)
            return
        except Exception:
            log.exception("gateway.request_failed", extra={"request_id": request_id})
            await respond(send, Internal(), request_id)
            return
        await _Serving(self, plan, request_id, began).run(receive, send)

    def _refused(self, error: InvalidRequest, began: float) -> None:
        self.events.emit(
            "gateway.request",
            route="",
            arm="",
            version=None,
            status=status_of(error),
            stream=False,
            outcome="refused",
            seconds=time.perf_counter() - began,
            ttft_seconds=None,
        )


class _Serving:
    """One request on its way."""

    def __init__(self, chat: Chat, plan: Plan, request_id: str, began: float) -> None:
        self.chat = chat
        self.plan = plan
        self.id = request_id
        self.began = began
        self.at = chat.clock()
        self.failed: list[Attempt] = []
        self.current: Attempt | None = None
        self.gone = False
        self.started = False
        self.status = CLIENT_CLOSED_REQUEST
        self.ttft: float | None = None

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
            await send({"type": "http.response.body", "body": attempt.content})
            return "ok" if self.status < 400 else "client_error"
        self.ttft = time.perf_counter() - self.began
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        return await self._relay(attempt, send)

    async def _answer(self) -> Attempt | UpstreamError:
        """The first attempt that gave something; or the last one's error."""
        deadline = self.began + self.plan.route.deadline
        error: UpstreamError | None = None
        for callee in self.plan.callees:
            seconds = callee.timeout
            if error is not None:
                seconds = min(seconds, deadline - time.perf_counter())
                if seconds <= 0:
                    break
                self._fell_back(error)
            attempt = self.current = Attempt(callee)
            try:
                await attempt.begin(self.chat.upstream, self.plan.outgoing(callee), seconds=seconds)
            except UpstreamError as failure:
                error = failure
                self.failed.append(attempt)
                if callee.version is not None:
                    self.chat.hard_stop.missed(callee.version, failure.constant)
                told = {"request_id": self.id, "route": self.plan.route.name, "error": failure.constant}
                log.warning("gateway.attempt_failed", extra={**told, "callee": callee.version or callee.upstream})
                continue
            return attempt
        return error or UpstreamTimeout()

    async def _relay(self, attempt: Attempt, send: Send) -> str:
        try:
            piece = attempt.content or await attempt.piece()
            while piece:
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
        self.chat.events.emit("gateway.fallback", route=self.plan.route.name, arm=arm, error=error.constant)

    def _finish(self, outcome: str) -> None:
        """Everything that the answer did not have to wait for. It is over, or nobody waits for it any more."""
        attempt, route = self.current, self.plan.route.name
        if attempt is None:
            return
        attempt.end("cancelled")
        seconds = time.perf_counter() - self.began
        revision = self.plan.decision.rollout_revision
        before = self.failed
        if before and before[-1] is attempt:  # nobody answered
            before = before[:-1]
        for tried in (*before, attempt):
            if tried.callee.version is None or tried.error == "cancelled":
                continue
            if tried is attempt or not refused_by_both(tried.status, attempt.status):
                self.chat.hard_stop.count(route, tried.callee.version, revision, failed=tried.error is not None)
        self.chat.events.emit(
            "gateway.request",
            route=route,
            arm=attempt.callee.arm,
            version=attempt.callee.version,
            status=self.status,
            stream=self.plan.body.stream,
            outcome=outcome,
            seconds=seconds,
            ttft_seconds=self.ttft,
        )
        done = Finished(
            id=self.id,
            at=self.at,
            path=PATH,
            decision=self.plan.decision,
            cluster=self.plan.cluster,
            stream=self.plan.body.stream,
            consents=self.plan.consents,
            request=self.plan.body.raw,
            served=attempt,
            failed=before,
            ttft_ms=None if self.ttft is None else self.ttft * 1000.0,
            total_ms=seconds * 1000.0,
        )
        # Without an answer there is nothing to compare with; what served in the end need not be asked again.
        if self.plan.shadows and outcome == "ok":
            shadows = [callee for callee in self.plan.shadows if callee is not attempt.callee]
            self.chat.shadows.start(done, [(callee, self.plan.outgoing(callee)) for callee in shadows])
        else:
            self.chat.capture.report(done)


def _content_type(attempt: Attempt) -> Pairs:
    return [(b"content-type", attempt.headers.get("content-type", "application/json").encode("latin-1"))]


async def respond(send: Send, error: GatewayError, request_id: str, *, headers: Pairs | None = None) -> None:
    """Send an error in OpenAI's shape."""
    body = openai_body(error)
    await send(
        {
            "type": "http.response.start",
            "status": status_of(error),
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"x-retort-request-id", request_id.encode()),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
