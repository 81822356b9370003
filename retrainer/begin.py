"""How a cycle begins: with a stored state, by which it is found after a restart."""

import time

from retrainer.audit import note
from retrainer.errors import CycleError
from retrainer.generations import earlier, needed
from retrainer.state import Cycles, CycleState, Request
from router.config import Config


def begin(config: Config, cycles: Cycles, request: Request) -> CycleState:
    """A cycle's stored state, written first where it has none: from then on it is found after a restart.

    Raises CycleError for a route without a student.
    """
    state = cycles.load(request.cycle_id) or _first(config, cycles, request)
    note(config.state, cycles.of(request.route))
    return state


def _first(config: Config, cycles: Cycles, request: Request) -> CycleState:
    policy = config.routes.get(request.route)
    if policy is None or policy.student is None:
        known = ", ".join(sorted(n for n, p in config.routes.items() if p.student)) or "none"
        raise CycleError(f"no route {request.route!r} with a student; there is: {known}")
    before = earlier(cycles, request.route, policy)
    given = policy.model_dump(mode="json")
    state = CycleState(request=request, policy=given, started_at=time.time(), earlier=before)
    cycles.save(state)
    cycles.trim(request.route, needed=needed(config, cycles))
    return state
