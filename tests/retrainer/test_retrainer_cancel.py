"""A cycle that a person ends: its process is stopped, it is not begun again, and the route's next one has its turn."""

import asyncio
from pathlib import Path

import pytest
from daemon_run import FINISH, config, cycles_of, log_exchanges, running, stand_in, until

from retort.cancel import cancel_cycle
from retort.errors import StartError
from retrainer import Cycles, Request, ask
from retrainer.audit import entries
from retrainer.begin import begin


async def test_a_running_cycle_is_ended_for_good_and_the_next_has_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    ask(settings.state, Request(cycle_id="wrong", route="colours"))
    mark = tmp_path / "began"
    sleeps = f"if cycle_id == 'wrong':\n    open({str(mark)!r}, 'w').close(); time.sleep(60)\n"
    async with running(settings, stand_in(sleeps + FINISH)) as told:
        await until(mark.exists)
        assert await asyncio.to_thread(cancel_cycle, settings, "colours", who="eve", why="the wrong base") == 0
        ask(settings.state, Request(cycle_id="right", route="colours"))
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["cancelled", "registered"])
        await until(lambda: ("retrainer.cycle", {"route": "colours", "outcome": "cancelled"}) in told)
    assert cycles_of(settings)[0].error == "eve: the wrong base"
    assert next((e.cycle, e.outcome) for e in entries(settings.state) if e.event == "ended") == ("wrong", "cancelled")
    assert capsys.readouterr().out == "wrong: cancelled\n"


def test_what_waits_is_cancelled_without_a_retrainer_and_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "s")
    cycles = Cycles(settings.state)
    with pytest.raises(StartError, match="no cycle that runs or waits"):
        cancel_cycle(settings, "colours", who="eve", why="x")
    with pytest.raises(StartError, match="no route 'nope'; the configuration has: colours"):
        cancel_cycle(settings, "nope", who="eve", why="x")
    begin(settings, cycles, Request(cycle_id="killed", route="colours"))
    ask(settings.state, Request(cycle_id="asked", route="colours"))
    assert cancel_cycle(settings, "colours", who="eve", why="x") == 0
    assert capsys.readouterr().out == "asked: withdrawn before it began\nkilled: cancelled\n"
    begin(settings, cycles, Request(cycle_id="busy", route="colours"))
    with cycles.lock("busy"):
        assert cancel_cycle(settings, "colours", who="eve", why="x", wait=0.3) == 1
    assert "busy: its process still runs after 0.3 s" in capsys.readouterr().out


async def test_a_cycle_that_was_cancelled_while_no_retrainer_ran_is_not_begun_again(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    log_exchanges(settings, range(2))
    cycles = Cycles(settings.state)
    begin(settings, cycles, Request(cycle_id="busy", route="colours"))
    with cycles.lock("busy"):
        await asyncio.to_thread(cancel_cycle, settings, "colours", who="eve", why="x", wait=0.0)
    async with running(settings, stand_in(FINISH)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["cancelled"])
