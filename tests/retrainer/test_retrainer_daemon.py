"""The daemon, with stand-in workers for its own logic, and once with the real one."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
from retrainer_fakes import interaction

from collector import open_log
from collector.frames import ACK, PREFIX, Happened, socket_path, unpack
from collector.log import Record, Stream
from collector.record import Interaction, encode
from exporters.models import Store
from retrainer.ask import ask, asked
from retrainer.daemon import WORKER, run
from retrainer.state import Cycles, CycleState, Request
from router import open_registry
from router.config import Config
from router.events import Events

NEVER = 10**6


def config(state: Path, *, base: str = "none", new: int = NEVER, **retrain: Any) -> Config:
    return Config.model_validate(
        {
            "state": str(state),
            "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True}},
            "engines": {"local": {}},
            "routes": {
                "colours": {
                    "teachers": ["up/m"],
                    "student": {"base": base, "engine": "local"},
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


def cycles_of(settings: Config) -> list[CycleState]:
    return Cycles(settings.state).of("colours")


async def test_enough_new_examples_start_one_cycle_and_its_events_are_passed_on(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(19))
    async with running(settings, stand_in(FINISH)) as told:
        await asyncio.sleep(0.4)
        assert cycles_of(settings) == []
        log_exchanges(settings, range(19, 21))
        await until(lambda: told)
        await asyncio.sleep(0.4)
    (state,) = cycles_of(settings)
    assert (state.request.reason, state.outcome) == ("new_examples", "registered")
    assert told == [("retrainer.phase", {"route": "colours", "phase": "train", "seconds": 1.0})]


async def test_a_request_starts_a_cycle_at_once_and_is_consumed(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours", max_steps=3))
    async with running(settings, stand_in(FINISH)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
    assert asked(settings.state, "colours") is None
    assert cycles_of(settings)[0].request.max_steps == 3


async def test_stopping_ends_the_worker_in_seconds_and_the_next_start_resumes_its_cycle(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    mark = tmp_path / "began"
    began = time.monotonic()
    async with running(settings, stand_in(f"open({str(mark)!r}, 'w').close(); time.sleep(60)")):
        await until(mark.exists)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    assert time.monotonic() - began < 20
    assert [s.outcome for s in cycles_of(settings)] == [None]
    async with running(settings, stand_in(FINISH)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
    assert [s.request.cycle_id for s in cycles_of(settings)] == ["mine"]


async def test_a_worker_that_dies_is_tried_again(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    mark = tmp_path / "died"
    code = (
        f"import os\nmark = {str(mark)!r}\n"
        "if not os.path.exists(mark):\n    open(mark, 'w').close(); os.kill(os.getpid(), 9)\n"
    )
    async with running(settings, stand_in(code + FINISH), retry=(0.1, 1.0)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
    assert mark.exists()


async def test_a_cycle_that_can_not_succeed_is_marked_as_failed_with_its_error(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    error = "{'event': 'worker.error', 'fields': {'error': 'the loss is no number', 'retryable': False}}"
    async with running(settings, stand_in(f"print(json.dumps({error})); sys.exit(1)")) as told:
        await until(lambda: told)
    (state,) = cycles_of(settings)
    assert (state.outcome, state.error) == ("failed", "the loss is no number")
    assert told == [("retrainer.cycle", {"route": "colours", "outcome": "failed"})]


async def test_a_request_that_is_no_json_is_thrown_away(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    (file,) = (tmp_path / "s" / "run" / "retrain").iterdir()
    file.write_text("{")
    async with running(settings, stand_in(FINISH)):
        await until(lambda: not file.exists())
    assert cycles_of(settings) == []


SKIP = "state.seen = 10**6\nstate.outcome, state.finished_at = 'skipped', time.time()\ncycles.save(state)\n"


async def test_what_a_skipped_cycle_has_looked_at_starts_no_other(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    async with running(settings, stand_in(SKIP)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["skipped"])
        await asyncio.sleep(0.6)
    assert len(cycles_of(settings)) == 1
    async with running(settings, stand_in(SKIP)):  # nor after a restart
        await asyncio.sleep(0.6)
    assert len(cycles_of(settings)) == 1


@pytest.mark.train
async def test_the_real_worker_skips_near_identical_requests_once(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", base=str(tiny_model.build(tmp_path / "base")), new=40)
    log_exchanges(settings, [msgspec.structs.replace(interaction(0), id=f"same{n}") for n in range(40)])
    async with running(settings, WORKER):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["skipped"], 60)
        await asyncio.sleep(0.6)
    (state,) = cycles_of(settings)
    log = open_log(settings.log)
    assert state.seen == log.end(Stream.INTERACTIONS)
    log.close()


HOPELESS = "print(json.dumps({'event': 'worker.error', 'fields': {'error': 'no such base'}})); sys.exit(1)"


async def test_a_trigger_whose_cycle_can_not_succeed_waits_for_the_longest_pause_or_a_restart(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    async with running(settings, stand_in(HOPELESS), retry=(0.01, 1.5)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"])
        await asyncio.sleep(0.5)
        assert len(cycles_of(settings)) == 1
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"] * 2)
    async with running(settings, stand_in(HOPELESS)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"] * 3)
        await asyncio.sleep(0.3)
        ask(settings.state, Request(cycle_id="mine", route="colours"))  # by hand it begins at once
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"] * 4)
    assert cycles_of(settings)[-1].request.cycle_id == "mine"


async def test_the_pauses_of_what_breaks_again_and_again_grow(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    times = tmp_path / "times"
    broken = f"print(time.time(), file=open({str(times)!r}, 'a')); sys.exit(75)"
    async with running(settings, stand_in(broken), retry=(0.1, 60.0)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"], 20)
        ended = time.time()
        await until(lambda: len(cycles_of(settings)) == 2, 20)
    at = [float(line) for line in times.read_text().split()][:5]
    for pause, (before, after) in zip((0.1, 0.2, 0.4, 0.8), itertools.pairwise(at), strict=True):
        assert after - before >= pause
    assert cycles_of(settings)[1].started_at - ended >= 1.4  # the trigger goes on where the cycle's pauses ended: 1.6


async def test_a_cycle_whose_state_is_no_state_is_told_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    for name, text in (("cut", '{"schema": 1, "requ'), ("older", "{}")):
        file = Path(settings.state) / "cycles" / name / "state.json"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (Path(settings.state) / "cycles" / "odd" / "state.json").mkdir(parents=True)
    async with running(settings, stand_in(FINISH)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
        caplog.clear()
        await asyncio.sleep(0.3)
        assert not caplog.records
    caplog.clear()
    Cycles(settings.state).of("colours")
    told = [(r.message, Path(r.file).parent.name, r.error) for r in caplog.records]  # type: ignore[attr-defined]
    assert sorted(name for _, name, _ in told) == ["cut", "odd", "older"]
    assert {message for message, _, _ in told} == {"retrainer.cycle_unreadable"}
    assert any("truncated" in error for _, _, error in told)


async def test_a_request_with_an_impossible_id_is_thrown_away(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="../out", route="colours"))
    async with running(settings, stand_in(FINISH)):
        await until(lambda: asked(settings.state, "colours") is None)
    assert cycles_of(settings) == []


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


@pytest.mark.train
@pytest.mark.timeout(240)
async def test_the_real_worker_is_stopped_in_training_and_finishes_at_the_next_start(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = config(tmp_path / "s", base=str(tiny_base), new=400, learning_rate=5e-3, epochs=8)
    log_exchanges(settings, range(560))
    cycles = Cycles(settings.state)

    def in_training() -> bool:
        standing = cycles.standing(states[0].request.cycle_id) if (states := cycles.of("colours")) else None
        return standing is not None and standing.phase == "train" and standing.done > 0

    async with collector_that_acknowledges(settings.state) as got:
        async with running(settings, WORKER):
            await until(in_training, 90)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 5
        (state,) = cycles.of("colours")
        assert state.outcome is None
        assert "train" not in state.phases
        async with running(settings, WORKER) as told:
            await until(lambda: cycles.of("colours")[0].outcome is not None, 140)
    (state,) = cycles.of("colours")
    assert (state.outcome, state.error) == ("registered", None)
    name = state.request.cycle_id
    assert Store(settings.artefacts).verify(name).id == name
    registry = open_registry(settings.registry)
    assert [v.id for v in registry.versions("colours")] == [name]
    registry.close()
    assert [h.event.version for h in got if isinstance(h, Happened)] == [name]
    assert ("retrainer.cycle", {"route": "colours", "outcome": "registered"}) in told
