"""`retort up`: starts every process of this machine, restarts what dies, and stops all in the order that loses nothing.

A stop first ends what accepts work (the gateway finishes its requests), and last the collector, so that everything
that was accepted is in the log.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec

from exporters.child import ending_with
from retort.errors import AlreadyRunning, StartError
from retort.process import EXIT_HOPELESS
from router import Config, private_folder

log = logging.getLogger("retort.supervisor")

STOP_SECONDS = 600.0  # the last resort: each process bounds its own end, the collector by what still gets scrubbed
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
STEADY_SECONDS = 30.0


class Program(msgspec.Struct, frozen=True):
    """A process to keep running: `retort` with these arguments."""

    name: str
    arguments: tuple[str, ...]


def programs(config: Config, config_path: str, *, host: str, port: int) -> list[Program]:
    """What `retort up` runs, in the order of starting; stopping goes the other way round."""
    common = ("--config", config_path)
    collector = ("collector", *common, "--gateway", f"http://{host}:{port}")
    found = [Program("collector", collector), Program("promoter", ("promoter", *common))]
    stand_ins = [urlsplit(upstream.base_url).port or 80 for upstream in config.upstreams.values() if upstream.stands_in]
    for teacher_port in dict.fromkeys(stand_ins):
        found.append(Program(f"teacher {teacher_port}", ("sample-teacher", "--port", str(teacher_port))))
    found += [Program(f"engine {name}", ("engine", name, *common)) for name in config.engines]
    if any(policy.student for policy in config.routes.values()):
        found.append(Program("retrainer", ("retrainer", *common)))
    gateway = ("gateway", *common, "--host", host, "--port", str(port))
    if config.workers == 1:
        return [*found, Program("gateway", gateway)]
    return found + [Program(f"gateway {n}", (*gateway, "--reuse-port")) for n in range(1, config.workers + 1)]


def lock_state(state: str) -> IO[str]:
    """Hold the state folder for this process. Raises AlreadyRunning, StartError."""
    path = Path(state) / "run" / "up.lock"
    try:
        private_folder(path.parent)
        handle = path.open("a+")
    except OSError as error:
        raise StartError(f"state: {state!r} can't be used as the state folder: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise AlreadyRunning(
            f"another `retort up` uses {state}; stop it, or give this one its own `state:` folder"
        ) from error
    return handle


class Supervisor:
    """Runs programs until `stop` is set.

    One that fails in a way that starting it again can't mend ends all while Retort starts: a wrong set-up is told at
    once. After `ready` was set it costs the others nothing, and is tried again after the longest pause.
    """

    def __init__(
        self,
        wanted: Sequence[Program],
        *,
        begin: Callable[[Program], Awaitable[asyncio.subprocess.Process]] | None = None,
        on_end: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """`begin`: starts a program, `start` below by default. `on_end`: told the id of each process that ended."""
        self._wanted = wanted
        self._begin = begin or start
        self._on_end = on_end
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._over: set[str] = set()
        self.ready = False
        self.failed: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Start all, keep them running, and stop them in reverse order."""
        keepers = [asyncio.create_task(self._keep(program, stop)) for program in self._wanted]
        await stop.wait()
        for program, keeper in zip(reversed(self._wanted), reversed(keepers), strict=True):
            self._over.add(program.name)  # until here it was kept: the collector takes what the others still send
            await self._end(program.name)
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, program: Program, stop: asyncio.Event) -> None:
        pause = FIRST_PAUSE
        while program.name not in self._over:
            began = time.monotonic()
            try:
                process = await self._begin(program)
            except OSError as error:  # no memory, or no room for another process
                log.error("process.not_started", extra={"program": program.name, "why": error, "again_in": pause})
                pause = await _paused(pause, stop)
                continue
            self._running[program.name] = process
            status = await process.wait()
            del self._running[program.name]
            self._on_end(process.pid)
            if program.name in self._over:
                return
            if status == EXIT_HOPELESS and not self.ready:
                if not stop.is_set():  # else it is not what ends all
                    self.failed = program.name
                    stop.set()
                return
            if status == EXIT_HOPELESS:
                pause = LONGEST_PAUSE
            elif time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            level = logging.ERROR if status == EXIT_HOPELESS else logging.WARNING
            log.log(level, "process.ended", extra={"program": program.name, "status": status, "again_in": pause})
            pause = await _paused(pause, stop)

    async def _end(self, name: str) -> None:
        process = self._running.get(name)
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            log.error("process.killed", extra={"program": name, "after_seconds": STOP_SECONDS})
            process.kill()
            await process.wait()


async def start(program: Program) -> asyncio.subprocess.Process:
    """Start one program, in a session of its own: the terminal's Ctrl-C reaches the supervisor alone."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "retort",
        *program.arguments,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=ending_with(os.getpid(), by=signal.SIGTERM),
    )


async def _paused(seconds: float, stop: asyncio.Event) -> float:
    """Wait, but not through the beginning of a stop; returns how long the next pause is."""
    if stop.is_set():
        await asyncio.sleep(seconds)
    else:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
            return FIRST_PAUSE
    return min(seconds * 2, LONGEST_PAUSE)
