"""Where a cycle is worked on: a process on this machine, which hands its heavy phases to a cluster where its route has
one; and the process that tells a tracker of it."""

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from retrainer.child import run_child
from retrainer.lease import Lost
from retrainer.ray_job import RayFailed, run_job, write_order
from retrainer.state import Cycles, Request
from retrainer.stopping import EXIT_AGAIN
from retrainer.worker import EXIT_DONE, EXIT_ELSEWHERE
from router.config import Config
from router.events import Events

log = logging.getLogger("retort.retrainer")

TRACK_SECONDS = 240.0  # W&B's own bounds are 150 s together
TRACKER = (sys.executable, "-m", "retrainer.tracking")


class Workplace:
    """`worker`: the command of the process. `stop` ends whatever is at work."""

    def __init__(self, config: Config, events: Events, stop: asyncio.Event, worker: Sequence[str]) -> None:
        self._config, self._events, self._stop, self._worker = config, events, stop, worker

    async def run(self, request: Request, lost: Lost, unwanted: asyncio.Event) -> tuple[int, str | None]:
        """Work on a cycle until it ends, its lease is `lost`, or it is `unwanted`: the exit status (EXIT_ELSEWHERE:
        its cluster is away), and the error."""
        code, error = await self._child(request, lost, unwanted)
        while code == EXIT_ELSEWHERE:
            code, error = await self._on_ray(request, lost, unwanted)
            if code != EXIT_DONE:
                break
            code, error = await self._child(request, lost, unwanted)
        return code, error

    async def track(self, request: Request) -> None:
        """Tell the route's tracker, if it has one, of a cycle that has ended; for so long as other cycles can wait."""
        if self._config.routes[request.route].retrain.tracking is not None:
            order = {"config": self._config.model_dump(mode="json"), "cycle": request.cycle_id}
            late = asyncio.Event()
            timer = asyncio.get_running_loop().call_later(TRACK_SECONDS, late.set)
            await run_child(TRACKER, order, (self._stop, late), tell=lambda _: None, at_once=lambda: True)
            timer.cancel()
            if late.is_set():
                cycle = request.cycle_id
                log.warning("retrainer.not_tracked", extra={"cycle": cycle, "error": f"not in {TRACK_SECONDS:.0f} s"})

    async def _child(self, request: Request, lost: Lost, unwanted: asyncio.Event) -> tuple[int, str | None]:
        order = {"config": self._config.model_dump(mode="json"), "request": msgspec.to_builtins(request)}
        code, error = await run_child(
            self._worker,
            order,
            (self._stop, lost, unwanted),
            tell=lambda line: self._tell(line, request.route),
            at_once=lambda: lost.gone,
        )
        return code, error or (None if code == EXIT_DONE else f"the cycle's process ended with status {code}")

    async def _on_ray(self, request: Request, lost: Lost, unwanted: asyncio.Event) -> tuple[int, str | None]:
        """The heavy phases, as a job of the route's cluster."""
        address = self._config.routes[request.route].retrain.on or ""
        order = write_order(self._config, request, Cycles(self._config.state).folder(request.cycle_id))
        try:
            stops, token = (self._stop, lost, unwanted), self._config.ray.token
            code, printed = await run_job(address, order, request.cycle_id, stops, token=token)
        except RayFailed as failed:
            return EXIT_ELSEWHERE if failed.away else EXIT_AGAIN, str(failed)
        told = [self._tell(line, request.route) for line in printed.splitlines()]
        error = next(filter(None, told), None)
        return code, error or (None if code == EXIT_DONE else f"the cycle's job ended with status {code}")

    def _tell(self, line: str | bytes, route: str) -> str | None:
        """Pass on what a process printed; an error is returned."""
        try:
            told: dict[str, Any] = json.loads(line)
            name, fields = told["event"], told["fields"]
        except (ValueError, TypeError, KeyError):  # a library's print
            return None
        if name == "worker.error":
            return str(fields["error"])
        if name == "worker.progress":
            log.info("retrainer.progress", extra={"route": route, **fields})
        else:
            self._events.emit(name, **fields)
        return None
