"""`retort cancel ROUTE`: ends the route's training cycle for good, running or waiting, and withdraws a request."""

import time

from retort.errors import StartError
from retrainer import CycleBusy, Cycles, RetrainerError, asked
from retrainer.ask import answered
from retrainer.cancel import Word, cancel, end
from router import Config

POLL_SECONDS = 0.2


def cancel_cycle(config: Config, route: str, *, who: str, why: str, wait: float = 60.0) -> int:
    """Returns 0, or 1 where the cycle's process has not ended after `wait` seconds. Raises StartError, also where there
    is nothing to cancel."""
    if route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    cycles, word = Cycles(config.state), Word(who=who, why=why)
    try:
        waiting = asked(config.state, route)
        answered(config.state, route)
        if waiting is not None:
            print(f"{waiting.cycle_id}: withdrawn before it began")
        unfinished = [state.request.cycle_id for state in cycles.of(route) if state.outcome is None]
        if waiting is None and not unfinished:
            raise StartError(f"route {route!r} has no cycle that runs or waits; `retort cycles {route}` lists them")
        for cycle_id in unfinished:
            cancel(cycles, cycle_id, word)
        running = [one for one in unfinished if not _ended(config, cycles, one, word, wait=wait)]
        return int(bool(running))
    except RetrainerError as error:
        raise StartError(str(error)) from error


def _ended(config: Config, cycles: Cycles, cycle_id: str, word: Word, *, wait: float) -> bool:
    deadline = time.monotonic() + wait
    while True:
        try:
            end(config.state, cycles, cycle_id, word)
        except CycleBusy:  # the retrainer ends it, once the step that runs is done
            if time.monotonic() > deadline:
                print(f"{cycle_id}: its process still runs after {wait:g} s; it ends at its next step")
                return False
            time.sleep(POLL_SECONDS)
            continue
        state = cycles.load(cycle_id)
        print(f"{cycle_id}: {state.outcome if state else 'gone'}")
        return True
