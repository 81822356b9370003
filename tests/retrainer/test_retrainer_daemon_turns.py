"""Whose turn it is where several routes want a cycle."""

import asyncio
from pathlib import Path

import msgspec
from daemon_run import config, log_exchanges, running, stand_in, until
from retrainer_fakes import interaction

from retrainer.ask import ask
from retrainer.begin import begin
from retrainer.state import Cycles, CycleState, Request
from router.config import Config

# Leaves its route as due as it was: as one whose traffic brings enough examples during a cycle.
STILL_DUE = (
    "state.phases['dataset'] = {'end': 0}\n"
    "state.outcome, state.finished_at = 'registered', time.time()\n"
    "cycles.save(state)\n"
)


def two_routes(state: Path, *, new: int) -> Config:
    """`colours`, which needs `new` examples and has 20, and `shapes`, which has none."""
    given = config(state, new=new).model_dump(mode="json")
    given["routes"]["shapes"] = given["routes"]["colours"]
    made = Config.model_validate(given)
    log_exchanges(made, range(20))
    return made


def ended(settings: Config) -> list[CycleState]:
    """All routes' finished cycles, in the order in which they ended."""
    cycles = Cycles(settings.state)
    states = [s for route in settings.routes for s in cycles.of(route) if s.finished_at is not None]
    return sorted(states, key=lambda s: s.finished_at or 0.0)


async def test_what_a_person_asks_for_waits_for_no_other_route(tmp_path: Path) -> None:
    """Nor for one that is due again as soon as its cycle ends."""
    settings = two_routes(tmp_path / "s", new=20)
    async with running(settings, stand_in(STILL_DUE)):
        await until(lambda: ended(settings), 60)
        ask(settings.state, Request(cycle_id="mine", route="shapes"))
        await until(lambda: "mine" in [s.request.cycle_id for s in ended(settings)], 60)
        await until(lambda: ended(settings)[-1].request.route == "colours", 60)
    names = [s.request.cycle_id for s in ended(settings)]
    assert names.index("mine") <= 2


async def test_a_request_by_hand_comes_before_what_is_unfinished_and_that_before_what_is_due(tmp_path: Path) -> None:
    settings = two_routes(tmp_path / "s", new=20)
    log_exchanges(settings, [msgspec.structs.replace(interaction(n), id=f"s{n}", route="shapes") for n in range(20)])
    begin(settings, Cycles(settings.state), Request(cycle_id="unfinished", route="colours"))
    ask(settings.state, Request(cycle_id="mine", route="shapes"))
    async with running(settings, stand_in(STILL_DUE)):
        await until(lambda: len(ended(settings)) >= 6, 60)
    states = ended(settings)
    assert [s.request.cycle_id for s in states[:2]] == ["mine", "unfinished"]
    assert [s.request.route for s in states[2:6]] == ["shapes", "colours"] * 2, "who has waited longest"


async def test_a_route_whose_cycle_is_another_retrainers_keeps_nobody_waiting(tmp_path: Path) -> None:
    settings = two_routes(tmp_path / "s", new=10**6)
    other = settings.model_copy(update={"state": str(tmp_path / "other")})
    ask(other.state, Request(cycle_id="theirs", route="colours"))
    async with running(other, stand_in("time.sleep(60)")):
        await until(lambda: Cycles(other.state).of("colours"))
        ask(settings.state, Request(cycle_id="waits", route="colours"))
        ask(settings.state, Request(cycle_id="mine", route="shapes"))
        async with running(settings, stand_in(STILL_DUE)):
            await until(lambda: [s.request.cycle_id for s in ended(settings)] == ["mine"])
            await asyncio.sleep(0.2)
    assert [s.request.cycle_id for s in ended(settings)] == ["mine"]
