"""One room in one process: logging, signals, metrics, and errors as messages."""

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from exporters.logs import FieldFormatter
from router import Config, Events

EXIT_USAGE = 2
EXIT_HOPELESS = 78  # sysexits' EX_CONFIG: starting again would not help

Room = Callable[[Config, Events, asyncio.Event], Awaitable[None]]


def leave_no_dump() -> None:
    """This process and its children leave no core dump: one would hold texts that nobody has scrubbed. A limit of one
    byte keeps the kernel from writing a file, and from handing the memory to a collector of dumps; see core(5)."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def set_up_logging(name: str, *, level: int = logging.INFO) -> None:
    """Log to standard error, each line with this process's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter(f"%(asctime)s %(levelname)-7s {name:<9} %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "openai", "aiohttp.access", "presidio-analyzer", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def run_room(room: Room, config: Config) -> int:
    """Run until the room returns, or a signal asks it to. Returns the exit status."""
    from exporters.prometheus import subscriber  # noqa: PLC0415 - after share_metrics, which it must not precede

    events = Events()
    events.subscribe(subscriber())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_stopped(room, config, events))


async def _until_stopped(room: Room, config: Config, events: Events) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    try:
        await room(config, events, stop)
    except Exception as error:
        # The edge of the process: an error that a room knows is a message, any other is a traceback.
        known = getattr(error, "retryable", None)
        if known is None:
            logging.getLogger("retort").exception("process.failed")
            return 1
        print(f"retort: {error}", file=sys.stderr)
        return 1 if known else EXIT_HOPELESS
    return 0
