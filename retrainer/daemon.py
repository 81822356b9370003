"""The retrainer's process: watches the triggers, and runs cycles one after another in a child process.

Training would block the loop (and the answer to SIGTERM) for minutes, so it has a process of its own; that one is
terminated when this one stops, and its cycle is resumed at the next start.

A cycle that broke is tried again after a pause, which doubles each time until it comes further; so is a trigger whose
cycle failed for good. Pauses are kept in memory alone: a restart (the configuration may be another) and a request by
hand begin at once.
"""

import asyncio
import logging
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from collector import open_interactions
from retrainer.ask import answered, asked, waits
from retrainer.audit import note
from retrainer.begin import begin
from retrainer.cancel import cancelled, end
from retrainer.counting import Count
from retrainer.errors import CycleBusy, CycleError, RetrainerError
from retrainer.lease import LEASE_SECONDS, Leases, Lost
from retrainer.pause import Pause
from retrainer.state import BUILDING, Cycles, Request, new_id
from retrainer.triggers import due
from retrainer.worker import EXIT_DONE, EXIT_ELSEWHERE, EXIT_FAILED
from retrainer.workplace import Workplace
from router.config import Config
from router.events import Events

log = logging.getLogger("retort.retrainer")

POLL_SECONDS = 1.0
RETRY_SECONDS = (10.0, 3600.0)
MOST_ATTEMPTS = 10  # over 85 minutes, without any progress: a store may be away so long
HOPELESS = 24  # times as long, at the longest, where trying again is of little use
POLL_CANCEL = 0.5
WORKER = (sys.executable, "-m", "retrainer.worker")


async def run(
    config: Config,
    *,
    events: Events,
    stop: asyncio.Event,
    poll: float = POLL_SECONDS,
    worker: Sequence[str] = WORKER,
    retry: tuple[float, float] = RETRY_SECONDS,
    lease: float = LEASE_SECONDS,
) -> None:
    """Run cycles until `stop` is set; a running one is interrupted and resumed at the next start.

    `poll`: seconds between looks at the triggers. `worker`: the command of the child process. `retry`: seconds
    before what broke is tried again, at first and at the longest; what can't succeed waits for the longest. `lease`:
    seconds, see Leases.
    """
    leases = Leases(config, seconds=lease)
    daemon = _Daemon(config, events, stop, leases, worker=worker, retry=retry)
    try:
        while not stop.is_set():
            try:
                request = daemon.next()
                if request is not None:
                    await daemon.work(request)
            except (OSError, CycleError) as error:  # a full disk, say: what is unfinished waits in its files
                log.error("retrainer.state_not_written", extra={"error": str(error)})
                await _sleep(stop, retry[0])
            await _sleep(stop, poll)
    finally:
        daemon.close()


class _Daemon:
    def __init__(
        self,
        config: Config,
        events: Events,
        stop: asyncio.Event,
        leases: Leases,
        *,
        worker: Sequence[str],
        retry: tuple[float, float],
    ) -> None:
        self._config, self._events, self._stop, self._leases = config, events, stop, leases
        self._workplace = Workplace(config, events, stop, worker)
        self._first_pause, self._longest_pause = retry
        self._cycles = Cycles(config.state)
        self._interactions = open_interactions(config)
        self._counts = {
            route: Count(self._interactions, self._cycles, route, policy, events)
            for route, policy in config.routes.items()
            if policy.student is not None
        }
        for route in self._counts:
            note(config.state, self._cycles.of(route))
        self._pauses: defaultdict[str, Pause] = defaultdict(Pause)  # by cycle, and by route for its triggers

    def close(self) -> None:
        self._interactions.close()
        self._leases.close()

    def next(self) -> Request | None:
        """The cycle to run now; its route's lease is taken. First comes a route that a person asks for, then one with
        an unfinished cycle, then whose last cycle ended first. Of a route an unfinished cycle comes first, then what
        was asked for, then what is due."""
        unfinished = {route: self._unfinished(route) for route in self._counts}
        turns = {
            route: (not waits(self._config.state, route), unfinished[route] is None, self._cycles.ended_at(route))
            for route in self._counts
        }
        for route in sorted(turns, key=turns.__getitem__):
            request = unfinished[route]
            wanted = None if request else self._wanted(route)
            if (request or wanted) and self._leases.take(route):
                if request is None and wanted is not None:
                    request = self._begin(wanted)
                if request is not None:
                    return request
                self._leases.release(route)
        return None

    async def work(self, request: Request) -> None:
        """Run one cycle in a child process, to its end or until `stop`, or until the lease is lost; then the lease is
        given back."""
        lost, unwanted = Lost(), asyncio.Event()
        beside = [
            asyncio.create_task(self._leases.keep(request.route, lost)),
            asyncio.create_task(self._until_unwanted(request.cycle_id, unwanted)),
        ]
        try:
            code, error = await self._workplace.run(request, lost, unwanted)
        finally:
            for task in beside:
                task.cancel()
        if lost.is_set():
            log.error("retrainer.lease_lost", extra={"cycle": request.cycle_id})  # who holds it may run another
            return
        if not self._unwanted(request.route, request.cycle_id):
            self._ended(request, code, error)
        note(self._config.state, self._cycles.of(request.route))
        self._leases.release(request.route)
        state = self._cycles.load(request.cycle_id)
        if state is not None and state.outcome is not None:
            await self._workplace.track(request)

    def _ended(self, request: Request, code: int, error: str | None) -> None:
        if self._stop.is_set():
            return
        cycle_id, route = request.cycle_id, request.route
        state = self._cycles.load(cycle_id)
        if code == EXIT_DONE or (state is not None and state.outcome is not None):
            self._pauses.pop(cycle_id, None)
            self._pauses.pop(route, None)
            self._counts[route].anew()
            return
        pause = self._pauses[cycle_id]
        pause.grow(self._first_pause, most=self._longest_pause, at=self._cycles.reached(cycle_id))
        log.error("retrainer.cycle_broke", extra={"cycle": cycle_id, "status": code, "error": error})
        if code == EXIT_ELSEWHERE:
            pause.times = 0  # a cluster that is away says nothing of the cycle, which waits for it
        if code == EXIT_FAILED or pause.times >= MOST_ATTEMPTS:
            del self._pauses[cycle_id]
            self._fail(request, error)
            hopeless = code == EXIT_FAILED  # the same examples would most likely end so again
            least, most = self._longest_pause if hopeless else pause.seconds, self._longest_pause
            self._pauses[route].grow(least, most=HOPELESS * most if hopeless else most)
            log.error("retrainer.paused", extra={"route": route, "seconds": self._pauses[route].seconds})

    def _fail(self, request: Request, error: str | None) -> None:
        state = next((s for s in self._cycles.of(request.route) if s.request.cycle_id == request.cycle_id), None)
        if state is not None and state.outcome is None:
            state.outcome, state.error, state.finished_at = "failed", error, time.time()
            self._cycles.save(state)
        shutil.rmtree(self._cycles.folder(request.cycle_id) / BUILDING, ignore_errors=True)
        self._counts[request.route].anew()
        self._events.emit("retrainer.cycle", route=request.route, outcome="failed")

    def _unfinished(self, route: str) -> Request | None:
        for state in self._cycles.of(route):
            cycle_id = state.request.cycle_id
            if state.outcome is None and not self._pauses[cycle_id].lasts and not self._unwanted(route, cycle_id):
                return state.request
        return None

    async def _until_unwanted(self, cycle_id: str, unwanted: asyncio.Event) -> None:
        while cancelled(self._cycles, cycle_id) is None:
            await _sleep(unwanted, POLL_CANCEL)
        unwanted.set()

    def _unwanted(self, route: str, cycle_id: str) -> bool:
        """Whether a person has cancelled the cycle; then that is its outcome."""
        word = cancelled(self._cycles, cycle_id)
        if word is None:
            return False
        with suppress(CycleBusy):  # who cancelled it makes it so just now
            end(self._config.state, self._cycles, cycle_id, word)
        state = self._cycles.load(cycle_id)
        if state is not None and state.outcome not in (None, "cancelled"):
            return False  # it had ended already
        self._pauses.pop(cycle_id, None)
        self._counts[route].anew()
        self._events.emit("retrainer.cycle", route=route, outcome="cancelled")
        return True

    def _wanted(self, route: str) -> Request | None:
        try:
            return asked(self._config.state, route) or self._due(route)
        except RetrainerError as error:
            self._refuse(route, error)
            return None

    def _begin(self, request: Request) -> Request | None:
        try:
            begin(self._config, self._cycles, request)
        except RetrainerError as error:
            self._refuse(request.route, error)
            return None
        if request.reason == "by_hand":
            answered(self._config.state, request.route)
        log.info("retrainer.cycle_begins", extra={"cycle": request.cycle_id, "reason": request.reason})
        return request

    def _refuse(self, route: str, error: RetrainerError) -> None:
        log.error("retrainer.bad_request", extra={"route": route, "error": str(error)})
        answered(self._config.state, route)

    def _due(self, route: str) -> Request | None:
        past = self._cycles.of(route)
        if self._pauses[route].lasts or any(state.outcome is None for state in past):
            return None  # it waits for its next attempt
        ended = past[-1].finished_at if past else None
        since = None if ended is None else time.time() - ended
        count = self._counts[route]
        new = count.count()
        policy = self._config.routes[route].retrain
        reason = due(policy, new_examples=new, seconds_since=since, drifted=count.drifted)
        return None if reason is None else Request(cycle_id=new_id(route), route=route, reason=reason)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
