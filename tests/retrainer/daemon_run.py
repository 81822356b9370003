"""The daemon on a state folder of its own, with stand-ins for its worker."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from retrainer_fakes import interaction

from collector import open_log
from collector.frames import ACK, PREFIX, socket_path, unpack
from collector.log import Record, Stream
from collector.record import Interaction, encode
from retrainer.daemon import run
from retrainer.state import Cycles, CycleState
from router.config import Config
from router.events import Events

NEVER = 10**6


def config(
    state: Path, *, base: str = "none", new: int = NEVER, student: Mapping[str, Any] | None = None, **retrain: Any
) -> Config:
    return Config.model_validate(
        {
            "state": str(state),
            "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True}},
            "engines": {"local": {}},
            "routes": {
                "colours": {
                    "teachers": ["up/m"],
                    "student": {"base": base, "engine": "local", **(student or {})},
                    "retrain": {"min_new_examples": new, **retrain},
                    "quality": {"margin": 0.1},
                }
            },
        }
    )


def log_exchanges(settings: Config, exchanges: Iterable[int | Interaction]) -> None:
    Path(settings.state).mkdir(exist_ok=True)
    log = open_log(settings.log)
    records = [interaction(e) if isinstance(e, int) else e for e in exchanges]
    log.append([(Stream.INTERACTIONS, Record(id=r.id, key=r.route, at=r.at, value=encode(r))) for r in records])
    log.close()


@asynccontextmanager
async def running(settings: Config, worker: tuple[str, ...], **options: Any) -> AsyncIterator[list[tuple[str, Any]]]:
    """The daemon with a command for its worker; yields the events, and stops it at the end."""
    told: list[tuple[str, Any]] = []
    events, stop = Events(), asyncio.Event()
    events.subscribe(lambda name, fields: told.append((name, fields)))
    daemon = asyncio.create_task(run(settings, events=events, stop=stop, poll=0.05, worker=worker, **options))
    try:
        yield told
    finally:
        stop.set()
        await asyncio.wait_for(daemon, 10)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        await asyncio.sleep(0.02)


def stand_in(code: str) -> tuple[str, ...]:
    """A worker that writes down its order, then runs `code` with `order` and `cycles`."""
    head = (
        "import json, sys, time\n"
        "from retrainer.state import Cycles\n"
        "order = json.loads(sys.stdin.readline())\n"
        "cycles = Cycles(order['config']['state'])\n"
        "cycle_id = order['request']['cycle_id']\n"
        "state = cycles.load(cycle_id)\n"
    )
    return (sys.executable, "-c", head + code)


FINISH = (
    "state.phases['dataset'] = {'end': 10**6}\n"
    "state.outcome, state.finished_at = 'registered', time.time()\n"
    "cycles.save(state)\n"
    "print('some library talks')\n"
    "fields = {'route': 'colours', 'phase': 'train', 'seconds': 1.0}\n"
    "print(json.dumps({'event': 'retrainer.phase', 'fields': fields}))\n"
)


def broken(error: str, status: int) -> str:
    """What a worker does that tells an error, and ends with this status."""
    told = {"event": "worker.error", "fields": {"error": error}}
    return f"print(json.dumps({told})); sys.exit({status})"


def cycles_of(settings: Config) -> list[CycleState]:
    return Cycles(settings.state).of("colours")


@asynccontextmanager
async def collector_that_acknowledges(state: str) -> AsyncIterator[list[Any]]:
    """The collector's end of the socket: it keeps the headers and acknowledges each."""
    got: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, body = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                envelope = unpack(await reader.readexactly(head))
                await reader.readexactly(body)
                got.append(envelope.header)
                writer.write(ACK.pack(envelope.sequence))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    path = socket_path(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield got
