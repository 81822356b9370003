"""Shadow calls: the other arm is asked too, after the answer, in the background, and never more than a few at once."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from gateway.attempt import Attempt, Outgoing
from gateway.capture import Capture, Finished
from gateway.errors import UpstreamError
from gateway.hard_stop import HardStop
from gateway.routes import Callee
from gateway.upstream import Upstream
from router import Events

log = logging.getLogger("retort.gateway")

MOST_AT_ONCE = 32
# The longest that an exchange waits for its shadows before it is reported.
MAX_SECONDS = 60.0

Prepare = Callable[[Callee], Awaitable[Outgoing]]


class Shadows:
    """Runs the shadow calls of finished exchanges, then reports each exchange once, with them."""

    def __init__(
        self,
        upstream: Upstream,
        capture: Capture,
        hard_stop: HardStop,
        events: Events,
        *,
        most: int = MOST_AT_ONCE,
        seconds: float = MAX_SECONDS,
    ) -> None:
        self._upstream = upstream
        self._capture = capture
        self._hard_stop = hard_stop
        self._events = events
        self._most = most
        self._seconds = seconds
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, done: Finished, planned: Sequence[Callee], prepare: Prepare) -> None:
        """Never waits. What finds no room, or whose version has gone away since, is dropped, with an event, and the
        exchange goes without it.

        `prepare`: what a callee is sent.
        """
        there = [callee for callee in planned if not self._hard_stop.away(callee.version)]
        there = there[: max(0, self._most - self._calls)]
        for callee in planned:
            if callee not in there:
                self._events.emit("gateway.shadow", route=done.decision.route, arm=callee.arm, outcome="dropped")
        planned = there
        reading = [attempt for attempt in done.deferred if attempt.open]
        if not planned and not reading:
            self._capture.report(done)
            return
        self._calls += len(planned)
        task = asyncio.create_task(self._run(done, planned, prepare))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def join(self, *, timeout: float) -> None:  # a bound for all of them together
        """Wait for those that run; after `timeout` seconds their exchanges are reported without them."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _run(self, done: Finished, planned: Sequence[Callee], prepare: Prepare) -> None:
        attempts = [Attempt(callee) for callee in planned]
        calls = [self._call(attempt, prepare, done.decision.route) for attempt in attempts]
        calls += [attempt.read_on(self._seconds) for attempt in done.deferred if attempt.open]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*calls)
        except Exception:
            log.exception("gateway.shadow_failed")  # the edge of a background task
        finally:
            self._calls -= len(planned)
            for attempt in attempts:
                attempt.end("cancelled")  # one that was stopped before it began
            for attempt in done.deferred:
                if attempt.open:
                    attempt.drop()
            self._capture.report(done, attempts)

    async def _call(self, attempt: Attempt, prepare: Prepare, route: str) -> None:
        callee = attempt.callee
        self._hard_stop.calling(callee.version)
        try:
            async with asyncio.timeout(self._seconds):
                await attempt.begin(self._upstream, prepare(callee), seconds=callee.timeout)
                self._hard_stop.answers(callee.version)
                while attempt.streams and await attempt.piece():
                    pass
        except TimeoutError:
            attempt.error = "timeout"
        except UpstreamError:
            pass  # noted by the attempt
        finally:
            attempt.end("cancelled")
            self._hard_stop.over(attempt)
            outcome = attempt.error or "ok"
            self._events.emit("gateway.shadow", route=route, arm=callee.arm, outcome=outcome)
