"""`retort up`: checks what can be checked before anything starts, supervises, and says when it is ready."""

import asyncio
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
from prometheus_client.multiprocess import mark_process_dead

from collector import socket_path
from retort.errors import StartError
from retort.prepare import prepare
from retort.process import EXIT_HOPELESS
from retort.settings import be_offline, share_metrics
from retort.supervisor import Supervisor, lock_state, programs
from router import Config

READY_SECONDS = 120.0


async def up(config: Config, config_path: str, *, port: int | None = None) -> int:
    """Run until a signal comes, or until a process fails for good. Returns the exit status."""
    host, _, configured = config.listen.rpartition(":")
    port = int(configured) if port is None else port
    if config.log.startswith("memory://"):
        raise StartError("log: memory:// is shared by no two processes, it is for tests alone; write sqlite:///PATH")
    lock = lock_state(config.state)
    refuse_taken(host, port)
    be_offline()
    await asyncio.to_thread(prepare, config)
    forget_metrics(config.state)
    share_metrics(config.state)
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    supervisor = Supervisor(programs(config, config_path, host=host, port=port), on_end=mark_process_dead)
    greeting = asyncio.create_task(_greet(config, f"http://{host}:{port}", supervisor, stop))
    await supervisor.run(stop)
    greeting.cancel()
    lock.close()
    if supervisor.failed:
        print(f"retort: {supervisor.failed} could not run (see above); everything was stopped", file=sys.stderr)
        return EXIT_HOPELESS
    print("retort: drained and stopped", flush=True)
    return 0


def forget_metrics(state: str) -> None:
    """Remove what earlier processes of a state folder counted. Only whoever holds the folder may, before any process
    starts: a running one would go on writing into a file that nobody reads."""
    shutil.rmtree(Path(state) / "run" / "metrics", ignore_errors=True)  # where share_metrics puts them


def refuse_taken(host: str, port: int) -> None:
    """Raise StartError where something already listens."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise StartError(
                f"{host}:{port} is taken ({error.strerror}); stop what listens there, or choose another with --port"
            ) from error


async def _greet(config: Config, url: str, supervisor: Supervisor, stop: asyncio.Event) -> None:
    while not await ready(url, stop) or not await _listens(socket_path(config.state), stop):
        if stop.is_set():
            return
    supervisor.ready = True
    print(f"\nRetort is ready: point your app's base_url at {url}/v1", flush=True)
    for name, upstream in config.upstreams.items():
        if upstream.stands_in:
            print(
                f"  {name} has no key: the sample teacher at {upstream.base_url} answers in its place. It knows one "
                "narrow task; set the key to use the real API.",
                flush=True,
            )
    print("  retort status shows the loop; Ctrl-C drains and stops it.\n", flush=True)


async def _listens(collector: Path, stop: asyncio.Event) -> bool:
    """Wait until the collector, which loads its models first, is there too; False when stopped before."""
    while not collector.exists() and not stop.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return not stop.is_set()


async def ready(url: str, stop: asyncio.Event) -> bool:
    """Wait until the gateway at `url` says that it is ready; False when stopped before."""
    deadline = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient(timeout=2.0) as client:
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return True
            except httpx.HTTPError:
                pass  # not listening yet
            await asyncio.sleep(0.2)
    return False
