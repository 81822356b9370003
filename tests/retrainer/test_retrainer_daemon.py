"""The daemon, with stand-in workers for its own logic, and once with the real one."""

import asyncio
import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_run import (
    FINISH,
    broken,
    collector_that_acknowledges,
    config,
    cycles_of,
    log_exchanges,
    running,
    stand_in,
    until,
)

from collector.frames import Happened
from exporters.models import Store
from retrainer.ask import ask, asked
from retrainer.daemon import WORKER
from retrainer.state import Cycles, Request
from retrainer.worker import EXIT_AGAIN, EXIT_FAILED, _unforeseen
from retrainer.workplace import Workplace
from router import open_registry
from router.config import Config
from router.events import Events


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


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "raise MemoryError"])
async def test_a_worker_that_dies_is_tried_again(tmp_path: Path, end: str) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    mark = tmp_path / "died"
    code = f"import os\nmark = {str(mark)!r}\nif not os.path.exists(mark):\n    open(mark, 'w').close(); {end}\n"
    async with running(settings, stand_in(code + FINISH), retry=(0.1, 1.0)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
    assert mark.exists()


async def test_a_cycle_that_can_not_succeed_is_marked_as_failed_with_its_error(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    async with running(settings, stand_in(broken("the loss is no number", EXIT_FAILED))) as told:
        await until(lambda: told)
    (state,) = cycles_of(settings)
    assert (state.outcome, state.error) == ("failed", "the loss is no number")
    assert told == [("retrainer.cycle", {"route": "colours", "outcome": "failed"})]


async def test_a_cycle_that_breaks_at_every_attempt_has_failed_with_the_last_ones_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrainer.daemon.MOST_ATTEMPTS", 4)
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    attempts = tmp_path / "attempts"
    code = f"open({str(attempts)!r}, 'a').write('x')\n" + broken("No space left on device", EXIT_AGAIN)
    async with running(settings, stand_in(code), retry=(0.01, 0.02)) as told:
        await until(lambda: told, 30)
    (state,) = cycles_of(settings)
    assert (state.outcome, state.error) == ("failed", "No space left on device")
    assert len(attempts.read_text()) == 4


async def test_a_full_disk_ends_no_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    with monkeypatch.context() as full:
        full.setattr("retrainer.state.write_atomic", no_space)
        async with running(settings, stand_in(FINISH), retry=(0.05, 0.1)):
            await until(lambda: "retrainer.state_not_written" in caplog.text)
            full.undo()
            await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])


def no_space(path: Path, _: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


async def test_a_request_that_is_no_json_is_thrown_away(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="mine", route="colours"))
    (file,) = (tmp_path / "s" / "run" / "retrain").iterdir()
    file.write_text("{")
    async with running(settings, stand_in(FINISH)):
        await until(lambda: not file.exists())
    assert cycles_of(settings) == []


def test_the_real_worker_tells_of_a_registry_that_is_away_as_worth_another_try(tmp_path: Path) -> None:
    settings = config(tmp_path / "s").model_copy(update={"registry": "postgresql://127.0.0.1:1/x"})
    said = first_words_of_the_real_worker(settings)
    assert said["retryable"]
    assert "port 1 failed" in said["error"]


def test_the_real_worker_tells_of_a_disk_that_fails_as_worth_another_try(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    (tmp_path / "s" / "cycles").write_text("where a folder should be")
    said = first_words_of_the_real_worker(settings)
    assert said["retryable"]
    assert said["error"].startswith("NotADirectoryError: [Errno 20] Not a directory: ")


def first_words_of_the_real_worker(settings: Config) -> Any:
    """Of a worker that ends so that it is tried again."""
    request = Request(cycle_id="mine", route="colours")
    order = {"config": settings.model_dump(mode="json"), "request": msgspec.to_builtins(request)}
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(json.dumps(order).encode() + b"\n")
        worker.stdin.flush()
        said = json.loads(worker.stdout.readline())
        assert worker.wait(60) == EXIT_AGAIN
    assert said["event"] == "worker.error"
    return said["fields"]


def test_an_unforeseen_error_that_may_quote_a_record_is_told_by_its_place_alone() -> None:
    def told(text: str) -> str:
        try:
            int(text)
        except ValueError as error:
            return _unforeseen(error)
        return ""

    assert told("Jane Doe").startswith("ValueError in test_retrainer_daemon.py, line ")
    assert "Jane" not in told("Jane Doe")
    assert _unforeseen(OSError(28, "No space left on device")) == "OSError: [Errno 28] No space left on device"


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
            await until(lambda: any(name == "retrainer.cycle" for name, _ in told), 140)
    (state,) = cycles.of("colours")
    assert (state.outcome, state.error) == ("registered", None)
    name = state.request.cycle_id
    assert Store(settings.artefacts).verify(name).id == name
    registry = open_registry(settings.registry)
    assert [v.id for v in registry.versions("colours")] == [name]
    registry.close()
    assert [h.event.version for h in got if isinstance(h, Happened)] == [name]
    assert ("retrainer.cycle", {"route": "colours", "outcome": "registered"}) in told


async def test_a_server_that_takes_no_answer_keeps_no_other_cycle_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("retrainer.workplace.TRACK_SECONDS", 0.5)
    monkeypatch.setattr("retrainer.workplace.TRACKER", (sys.executable, "-c", "import time; time.sleep(60)"))
    made = config(tmp_path / "s", tracking={"mlflow": "http://127.0.0.1:1"})
    began = time.monotonic()
    await Workplace(made, Events(), asyncio.Event(), ()).track(Request(cycle_id="c", route="colours"))
    assert time.monotonic() - began < 30
    assert "retrainer.not_tracked" in caplog.text
