"""The retrainer's process: watches the triggers, and runs cycles one after another in a child process.

Training would block the loop (and the answer to SIGTERM) for minutes, so it has a process of its own; that one is
terminated when this one stops, and its cycle is resumed at the next start.

A cycle that broke is tried again after a pause, which doubles each time; so is a trigger whose cycle failed for good.
Pauses are kept in memory alone: a restart (the configuration may be another) and a request by hand begin at once.
"""

import asyncio
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from collector import Interactions, open_interactions
from collector.errors import LogError
from retrainer.ask import answered, asked
from retrainer.cycle import begin
from retrainer.data.curate import example_of
from retrainer.errors import RetrainerError
from retrainer.state import Cycles, Request, new_id
from retrainer.stopping import GRACE_SECONDS
from retrainer.triggers import due
from retrainer.worker import EXIT_DONE, EXIT_FAILED
from router.config import Config
from router.events import Events

log = logging.getLogger("retort.retrainer")

POLL_SECONDS = 1.0
RETRY_SECONDS = (10.0, 3600.0)
MOST_ATTEMPTS = 5
STOP_SECONDS = GRACE_SECONDS + 5.0  # a worker bounds its own end
WORKER = (sys.executable, "-m", "retrainer.worker")


async def run(
    config: Config,
    *,
    events: Events,
    stop: asyncio.Event,
    poll: float = POLL_SECONDS,
    worker: Sequence[str] = WORKER,
    retry: tuple[float, float] = RETRY_SECONDS,
) -> None:
    """Run cycles until `stop` is set; a running one is interrupted and resumed at the next start.

    `poll`: seconds between looks at the triggers. `worker`: the command of the child process. `retry`: seconds
    before what broke is tried again, at first and at the longest; what can't succeed waits for the longest.
    """
    daemon = _Daemon(config, events, stop, worker=worker, retry=retry)
    try:
        while not stop.is_set():
            request = daemon.next()
            if request is not None:
                await daemon.work(request)
            await _sleep(stop, poll)
    finally:
        daemon.close()


class _Daemon:
    def __init__(
        self, config: Config, events: Events, stop: asyncio.Event, *, worker: Sequence[str], retry: tuple[float, float]
    ) -> None:
        self._config, self._events, self._stop = config, events, stop
        self._worker = worker
        self._first_pause, self._longest_pause = retry
        self._cycles = Cycles(config.state)
        self._interactions = open_interactions(config)
        self._counts = {
            route: _Count(self._interactions, route, since=self._seen(route))
            for route, policy in config.routes.items()
            if policy.student is not None
        }
        self._pauses: defaultdict[str, _Pause] = defaultdict(_Pause)  # by cycle, and by route for its triggers

    def close(self) -> None:
        self._interactions.close()

    def next(self) -> Request | None:
        """The cycle to run now: an unfinished one first, then what was asked for, then what is due."""
        for route in self._counts:
            if request := self._unfinished(route) or self._wanted(route):
                return request
        return None

    async def work(self, request: Request) -> None:
        """Run one cycle in a child process, to its end or until `stop`."""
        code, error = await self._child(request)
        if self._stop.is_set():
            return
        cycle_id, route = request.cycle_id, request.route
        if code == EXIT_DONE:
            self._pauses.pop(cycle_id, None)
            self._pauses.pop(route, None)
            self._counts[route].since(self._seen(route))
            return
        pause = self._pauses[cycle_id]
        pause.grow(self._first_pause, most=self._longest_pause)
        log.error("retrainer.cycle_broke", extra={"cycle": cycle_id, "status": code, "error": error})
        if code == EXIT_FAILED or pause.times >= MOST_ATTEMPTS:
            del self._pauses[cycle_id]
            self._fail(request, error)
            if request.reason != "by_hand":
                least = self._longest_pause if code == EXIT_FAILED else pause.seconds
                self._pauses[route].grow(least, most=self._longest_pause)
                log.error("retrainer.paused", extra={"route": route, "seconds": self._pauses[route].seconds})

    def _fail(self, request: Request, error: str | None) -> None:
        state = next((s for s in self._cycles.of(request.route) if s.request.cycle_id == request.cycle_id), None)
        if state is not None and state.outcome is None:
            state.outcome, state.error, state.finished_at = "failed", error, time.time()
            self._cycles.save(state)
        self._counts[request.route].since(self._seen(request.route))
        self._events.emit("retrainer.cycle", route=request.route, outcome="failed")

    def _unfinished(self, route: str) -> Request | None:
        for state in self._cycles.of(route):
            cycle_id = state.request.cycle_id
            if state.outcome is None and not self._pauses[cycle_id].lasts:
                return state.request
        return None

    def _wanted(self, route: str) -> Request | None:
        try:
            by_hand = asked(self._config.state, route)
            request = by_hand or self._due(route)
            if request is None:
                return None
            begin(self._config, self._cycles, request)
        except RetrainerError as error:
            log.error("retrainer.bad_request", extra={"route": route, "error": str(error)})
            answered(self._config.state, route)
            return None
        if by_hand:
            answered(self._config.state, route)
        log.info("retrainer.cycle_begins", extra={"cycle": request.cycle_id, "reason": request.reason})
        return request

    def _due(self, route: str) -> Request | None:
        past = self._cycles.of(route)
        if self._pauses[route].lasts or any(state.outcome is None for state in past):
            return None  # it waits for its next attempt
        ended = past[-1].finished_at if past else None
        since = None if ended is None else time.time() - ended
        new = self._counts[route].count()
        reason = due(self._config.routes[route].retrain, new_examples=new, seconds_since=since)
        return None if reason is None else Request(cycle_id=new_id(route), route=route, reason=reason)

    def _seen(self, route: str) -> int:
        """The log offset up to which the route's cycles have read."""
        return max((state.read_to for state in self._cycles.of(route)), default=0)

    async def _child(self, request: Request) -> tuple[int, str | None]:
        child = await asyncio.create_subprocess_exec(
            *self._worker,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("a child process without pipes")  # never: both were asked for
        order = {"config": self._config.model_dump(mode="json"), "request": msgspec.to_builtins(request)}
        child.stdin.write(json.dumps(order).encode() + b"\n")  # by a pipe: the configuration may hold keys
        listening = asyncio.create_task(self._listen(child.stdout, request.route))
        stopping = asyncio.create_task(self._stop.wait())
        ending = asyncio.create_task(child.wait())
        await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            child.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(ending), STOP_SECONDS)
            except TimeoutError:
                child.kill()
        stopping.cancel()
        code = await ending
        error = await listening
        child.stdin.close()
        return code, error or (None if code == EXIT_DONE else f"the cycle's process ended with status {code}")

    async def _listen(self, output: asyncio.StreamReader, route: str) -> str | None:
        """Pass the child's events on; returns the error that it told, if any."""
        error = None
        async for line in output:
            try:
                told: dict[str, Any] = json.loads(line)
            except ValueError:  # a library's print
                continue
            name, fields = told["event"], told["fields"]
            if name == "worker.error":
                error = fields["error"]
            elif name == "worker.progress":
                log.info("retrainer.progress", extra={"route": route, **fields})
            else:
                self._events.emit(name, **fields)
        return error


class _Pause:
    """Twice as long after each failure."""

    def __init__(self) -> None:
        self.times, self.seconds = 0, 0.0
        self._until = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self._until

    def grow(self, least: float, *, most: float) -> None:
        """Something failed: wait from now on."""
        self.times += 1
        self.seconds = min(max(least, 2 * self.seconds), most)
        self._until = time.monotonic() + self.seconds


class _Count:
    """Usable answers that a route's log has gained since its last data set; reads each record once."""

    def __init__(self, interactions: Interactions, route: str, *, since: int) -> None:
        self._interactions, self._route = interactions, route
        self._next, self._count = since, 0

    def since(self, offset: int) -> None:
        """Count anew from an offset."""
        self._next, self._count = offset, 0

    def count(self) -> int:
        """How many there are now; the last known number while the log can't be read."""
        try:
            for offset, record in self._interactions.of(self._route, start=self._next):
                self._count += example_of(record, offset).example is not None
                self._next = offset + 1
        except LogError as error:
            log.warning("retrainer.log_unreadable", extra={"error": str(error)})
        return self._count


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
