"""The audit log of cycles: who started what on which data with which seed, and what came of it; only appended to."""

import json
import re
from pathlib import Path

import pytest
from daemon_run import FINISH, broken, config, cycles_of, log_exchanges, running, stand_in, until

from collector import open_interactions
from retort.cycles import cycles
from retort.errors import StartError
from retrainer.ask import ask
from retrainer.audit import entries, note
from retrainer.begin import begin
from retrainer.cycle import run_request
from retrainer.errors import NotEnoughExamples
from retrainer.evaluation.gate import Override
from retrainer.state import Cycles, CycleState, Request, Standing
from retrainer.worker import EXIT_FAILED
from router.config import Config
from router.events import Events


async def test_what_a_person_and_a_trigger_started_is_listed_with_its_seed_and_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "s", new=20, seed=7)
    assert cycles(settings, None, as_json=False) == 0
    assert "no cycle has begun yet" in capsys.readouterr().out
    log_exchanges(settings, range(20))
    async with running(settings, stand_in(FINISH)):
        await until(lambda: [s.outcome for s in cycles_of(settings)] == ["registered"])
    ask(settings.state, Request(cycle_id="mine", route="colours", who="eve", override=Override("eve", "a trial")))
    async with running(settings, stand_in(broken("the loss is no number", EXIT_FAILED))) as told:
        await until(lambda: told)
    (state,) = [s for s in cycles_of(settings) if s.request.cycle_id != "mine"]
    found = entries(settings.state)
    assert [(e.event, e.cycle, e.reason, e.who, e.outcome) for e in found] == [
        ("began", state.request.cycle_id, "new_examples", "retrainer", None),
        ("ended", state.request.cycle_id, "new_examples", "retrainer", "registered"),
        ("began", "mine", "by_hand", "eve", None),
        ("ended", "mine", "by_hand", "eve", "failed"),
    ]
    assert {(e.seed, e.base, e.recipe) for e in found} == {(7, "none", "lora")}
    assert (found[2].why, found[3].error) == ("a trial", "the loss is no number")

    file = tmp_path / "s/cycles.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # as a crash would leave it
    ask(settings.state, Request(cycle_id="next", route="colours"))
    async with running(settings, stand_in(FINISH)):
        await until(lambda: len(cycles_of(settings)) == 3 and cycles_of(settings)[2].outcome)
    first = state.request.cycle_id
    assert [e.cycle for e in entries(settings.state)] == [first, first, "mine", "mine", "next", "next"]

    assert cycles(settings, "colours", as_json=True) == 0
    assert [e["cycle"] for e in json.loads(capsys.readouterr().out)] == [first, first, "mine", "mine", "next", "next"]
    with pytest.raises(StartError, match="no route 'nope'"):
        cycles(settings, "nope", as_json=False)
    begin(settings, Cycles(settings.state), Request(cycle_id="a-long-name-of-a-cycle-that-runs", route="colours"))
    note(settings.state, cycles_of(settings))
    at = Standing(phase="train", done=3, total=9, seconds_left=60.0)
    Cycles(settings.state).report("a-long-name-of-a-cycle-that-runs", at)
    assert cycles(settings, "colours", as_json=False) == 0
    said = capsys.readouterr().out
    assert "mine: the loss is no number" in said.splitlines()
    assert re.search(r"a-long-name-of-a-cycle-that-runs .* train 3/9, 60 s left", said)


def test_what_a_kill_kept_out_of_the_log_is_told_later_and_nothing_twice(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    states = Cycles(settings.state)
    policy = settings.routes["colours"].model_dump(mode="json")
    killed = CycleState(request=Request(cycle_id="killed", route="colours"), policy=policy, started_at=1.0)
    states.save(killed)  # killed before its line
    assert begin(settings, states, killed.request).started_at == 1.0
    assert told(settings) == [("killed", "began", 1.0)]
    killed.outcome, killed.finished_at = "failed", 2.0
    states.save(killed)  # and here again
    for _ in range(2):
        begin(settings, states, Request(cycle_id="next", route="colours"))
    assert told(settings)[:2] == [("killed", "began", 1.0), ("killed", "ended", 2.0)]
    assert [line[:2] for line in told(settings)[2:]] == [("next", "began")]


async def test_a_daemon_that_starts_tells_what_a_kill_kept_out_of_the_log(tmp_path: Path) -> None:
    settings = config(tmp_path / "s")
    policy = settings.routes["colours"].model_dump(mode="json")
    request = Request(cycle_id="killed", route="colours")
    ended = CycleState(request=request, policy=policy, started_at=1.0, outcome="failed", finished_at=2.0)
    Cycles(settings.state).save(ended)
    for _ in range(2):
        async with running(settings, stand_in(FINISH)):
            await until(lambda: told(settings))
    assert told(settings) == [("killed", "began", 1.0), ("killed", "ended", 2.0)]


def told(settings: Config) -> list[tuple[str, str, float]]:
    return [(e.cycle, e.event, e.at) for e in entries(settings.state)]


def test_a_cycle_that_ends_in_its_worker_names_its_end_and_its_data(tmp_path: Path, tiny_base: Path) -> None:
    settings = config(tmp_path / "s", base=str(tiny_base))
    log_exchanges(settings, range(3))
    request = Request(cycle_id="mine", route="colours", who="eve")
    with open_interactions(settings) as interactions, pytest.raises(NotEnoughExamples):
        run_request(settings, request, registry=None, interactions=interactions, events=Events())  # type: ignore[arg-type]
    began, ended = entries(settings.state)
    assert (began.outcome, ended.outcome, began.seconds) == (None, "skipped", None)
    assert ended.seconds is not None
    assert ended.at >= began.at
