"""`retort retrain ROUTE`: asks the retrainer for one cycle now, and shows it to its end."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from retort.errors import StartError
from retrainer import Cycles, CycleState, Override, Request, RetrainerError, ask, asked, new_id, told_of
from retrainer.lease import at_work
from router import Config

POLL_SECONDS = 0.3
START_SECONDS = 5.0


def retrain(
    config: Config, route: str, *, max_steps: int | None, why: str | None, who: str, held_out: str | None
) -> int:
    """Returns 0 where a candidate was registered, 1 where not. Raises StartError, also where no cycle comes of it."""
    policy = config.routes.get(route)
    if policy is None or policy.student is None:
        known = [name for name, p in sorted(config.routes.items()) if p.student]
        raise StartError(f"no route {route!r} with a student; the configuration has: {', '.join(known) or 'none'}")
    if held_out is not None and not Path(held_out).is_file():
        raise StartError(f"--held-out {held_out}: no such file")
    request = Request(
        cycle_id=new_id(route),
        route=route,
        who=who,
        max_steps=max_steps,
        override=Override(who, why) if why else None,
        held_out=str(Path(held_out).absolute()) if held_out else None,
    )
    ask(config.state, request)
    try:
        state = _watch(config, request)
    except RetrainerError as error:  # a file of the state folder can't be read
        raise StartError(str(error)) from error
    except KeyboardInterrupt:
        print(f"{request.cycle_id} goes on without you; `retort cancel {route}` ends it")
        raise
    print(f"cycle {request.cycle_id}: {state.outcome}" + (f" ({state.error})" if state.error else ""))
    for line in told_of(state):
        print(f"  {line}")
    for phase, seconds in state.seconds.items():
        print(f"  {phase:30s} {seconds:7.1f} s")
    return 0 if state.outcome == "registered" else 1


def _watch(config: Config, request: Request) -> CycleState:
    cycles, cycle_id = Cycles(config.state), request.cycle_id
    columns = (
        TextColumn("{task.description:20s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    asked_at, compared, shown = time.monotonic(), False, ""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if not at_work(config.state):
        console.print(f"{cycle_id} waits until a retrainer runs on {config.state}; there is none now (retort up)")
        asked_at = float("inf")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("waiting", total=None, left="")
        while True:
            waiting = asked(config.state, request.route)  # looked at first: it goes when its cycle has a state
            state = cycles.load(cycle_id)
            if state is None and (waiting is None or waiting.cycle_id != cycle_id):
                raise StartError(_passed_over(cycle_id, waiting))
            if state is not None and not compared:
                compared = True
                for line in _other_settings(config, request.route, state):
                    console.print(line)
            if state is not None and state.outcome is not None:
                return state
            if state is None and time.monotonic() - asked_at > START_SECONDS:
                console.print(f"{cycle_id} waits: the retrainer is busy with another cycle; `retort cycles` lists them")
                asked_at = float("inf")
            standing = cycles.standing(cycle_id)
            if standing:
                if standing.phase != shown and not console.is_terminal:  # where a bar would be no use
                    console.print(f"{cycle_id}: {standing.said}")
                shown = standing.phase
                left = "" if standing.seconds_left is None else f"{standing.seconds_left:.0f} s left"
                bars.update(bar, description=standing.phase, completed=standing.done, total=standing.total, left=left)
            time.sleep(POLL_SECONDS)


def _other_settings(config: Config, route: str, state: CycleState) -> list[str]:
    """What to know where the running retrainer was started with another configuration of the route than this one."""
    here = config.routes[route].model_dump(mode="json")
    other = sorted(key for key, value in here.items() if state.policy.get(key) != value)
    if not other:
        return []
    keys = ", ".join(f"routes.{route}.{key}" for key in other)
    return [
        f"this cycle is by the configuration that the retrainer was started with, which differs in {keys}: "
        f"`retort cancel {route}`, restart `retort up`, and repeat the command"
    ]


def _passed_over(cycle_id: str, waiting: Request | None) -> str:
    """Why there will be no cycle of this id."""
    if waiting is None:
        return f"the retrainer refused the cycle {cycle_id}; its log says why (retrainer.bad_request)"
    return (
        f"the cycle {cycle_id} will not be: {waiting.who} asked for another, {waiting.cycle_id}, before it began, and "
        "one request of a route waits at a time; ask again when that one has begun"
    )
