"""What was skipped, broke or can't be read doesn't start again at once."""

import asyncio
import itertools
import time
from pathlib import Path

import msgspec
import pytest
import tiny_model
from daemon_run import FINISH, broken, config, cycles_of, log_exchanges, running, stand_in, until
from retrainer_fakes import interaction

from collector import open_log
from collector.log import Stream
from retrainer.ask import ask, asked
from retrainer.daemon import WORKER
from retrainer.state import Cycles, Request
from retrainer.worker import EXIT_FAILED

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
    assert state.seen == log.end(Stream.INTERACTIONS, key="colours")
    log.close()


HOPELESS = broken("no such base", EXIT_FAILED)


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
        await asyncio.sleep(0.3)
    assert cycles_of(settings)[-1].request.cycle_id == "mine", "the trigger waits after that, too"


async def test_the_pauses_of_what_breaks_again_and_again_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    times = tmp_path / "times"
    breaks = f"print(time.time(), file=open({str(times)!r}, 'a')); sys.exit(75)"
    monkeypatch.setattr("retrainer.daemon.MOST_ATTEMPTS", 5)
    async with running(settings, stand_in(breaks), retry=(0.1, 60.0)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"], 20)
        ended = time.time()
        await until(lambda: len(cycles_of(settings)) == 2, 20)
    at = [float(line) for line in times.read_text().split()][:5]
    for pause, (before, after) in zip((0.1, 0.2, 0.4, 0.8), itertools.pairwise(at), strict=True):
        assert after - before >= pause
    assert cycles_of(settings)[1].started_at - ended >= 1.4  # the trigger goes on where the cycle's pauses ended: 1.6


async def test_an_attempt_that_came_further_is_the_first_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrainer.daemon.MOST_ATTEMPTS", 4)
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    attempts = tmp_path / "attempts"
    further = (
        f"open({str(attempts)!r}, 'a').write('x')\n"
        f"tried = len(open({str(attempts)!r}).read())\n"
        "saved = cycles.folder(state.request.cycle_id) / 'train' / 'checkpoint.safetensors'\n"
        "saved.parent.mkdir(exist_ok=True)\n"
        "if tried == 3: saved.write_text('x')\n"
        "if tried == 5: state.phases['train'] = {}; cycles.save(state)\n"
        "sys.exit(75)"
    )
    async with running(settings, stand_in(further), retry=(0.01, 0.02)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed"], 60)
    assert len(attempts.read_text()) == 2 + 2 + 4


async def test_the_examples_of_a_cycle_that_failed_are_due_again(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", new=20)
    log_exchanges(settings, range(20))
    read = "state.phases['dataset'] = {'end': 10**6}\ncycles.save(state)\n"
    mark = tmp_path / "failed"
    once = f"import os\nif not os.path.exists({str(mark)!r}):\n    open({str(mark)!r}, 'w').close(); {HOPELESS}\n"
    async with running(settings, stand_in(read + once + FINISH), retry=(0.01, 0.5)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["failed", "registered"], 20)
        await asyncio.sleep(0.6)
    assert len(cycles_of(settings)) == 2, "what was registered has read them"


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
