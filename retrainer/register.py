"""A student that the gate let through becomes a version, and the rollout is told of it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from collector.frames import Happened, Header, socket_path
from collector.send import send_now
from retrainer.errors import CycleError
from retrainer.evaluation.assess import Assessment
from retrainer.evaluation.gate import Verdict
from retrainer.state import CycleState
from router.config import Config
from router.evidence import EventKind, RouteEvent
from router.policy import RoutePolicy
from router.registry import Registry, Version

Send = Callable[[Sequence[Header]], None]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """`base`: the name of what the student started from. `tools`: see Manifest."""

    verdict: Verdict
    assessed: Assessment
    base: str
    tools: str | None = None


def register(
    config: Config, policy: RoutePolicy, state: CycleState, registry: Registry, made: Registered, send: Send | None
) -> float:
    """Add the version, then tell the rollout; both are idempotent by id, so a repetition is harmless. Returns when, in
    Unix seconds. Raises what registry and collector raise."""
    if policy.student is None:
        raise CycleError(f"route {state.request.route!r} has no student")
    now, name = time.time(), state.request.cycle_id
    dataset, verdict = state.phases["dataset"], made.verdict
    version = Version(
        id=name,
        route=state.request.route,
        kind=policy.kind,
        base=made.base,
        engine=policy.student.engine,
        artefact=name,
        created_at=now,
        lineage={
            "dataset": dataset["digest"],
            "offsets": [dataset["first"], dataset["end"]],
            "reason": state.request.reason,
            "gate": verdict.gate,
        },
        tools=made.tools,
    )
    registry.add_version(version)
    data: dict[str, Any] = {"gate": verdict.gate, "who": verdict.who, "why": verdict.why}
    if policy.selective is not None:
        data |= {"mode": verdict.mode, "thresholds": made.assessed.thresholds, "shares": made.assessed.shares}
    event = RouteEvent(
        id=f"candidate:{name}",
        at=now,
        route=version.route,
        kind=EventKind.CANDIDATE,
        version=name,
        data={k: v for k, v in data.items() if v is not None},
    )
    headers = [Happened(event=event)]
    if send is not None:
        send(headers)
    else:
        send_now(socket_path(config.state), headers)
    return now
