"""Policies, rollouts and many requests to decide on."""

from typing import Any

from hypothesis import strategies as st

from router import Arm, Decision, RequestFacts, Rollout, RoutePolicy, ShadowCall, Stage, decide
from router.decide import unit


def policy(*, holdback: float = 0.1, **quality: Any) -> RoutePolicy:
    return RoutePolicy.model_validate(
        {
            "teachers": ["o/m"],
            "student": {},
            "quality": {"audit_rate": 0.2, "shadow_rate": 0.5, **quality},
            "rollout": {"steps": [0.05, 1.0], "holdback": holdback},
        }
    )


POLICY = policy()
SELF = policy(reference="self")
T = ShadowCall(Arm.TEACHER)
C = ShadowCall(Arm.STUDENT, "c")
N = 4000
NOISE = 0.035  # four standard deviations of a share over N requests


def canary(fraction: float, live: str | None = None, **changes: Any) -> Rollout:
    return Rollout(route="r", revision=3, live=live, challenger="c", stage=Stage.CANARY, fraction=fraction, **changes)


def shadow(live: str | None = None, **changes: Any) -> Rollout:
    return Rollout(route="r", live=live, challenger="c", stage=Stage.SHADOW, **changes)


def decisions(
    rollout: Rollout, *, ready: tuple[str, ...] = ("c", "l"), n: int = N, by: RoutePolicy = POLICY
) -> list[Decision]:
    facts = (RequestFacts(request_id=f"q{i}", cluster=f"k{i}") for i in range(n))
    return [decide(by, rollout, f, ready=ready) for f in facts]


def share(made: list[Decision], *, among: list[Decision] | None = None, asked: ShadowCall) -> float:
    """The share of decisions that ask this one besides."""
    return sum(asked in d.shadows for d in made) / len(made if among is None else among)


def _spread() -> list[RequestFacts]:
    """500 clusters whose places lie evenly in [0, 1), by place."""
    placed = sorted((unit("arm", "r", f"k{i}"), f"k{i}") for i in range(20_000))
    found: list[RequestFacts] = []
    for place, cluster in placed:
        if len(found) < 500 and place >= (len(found) + 0.5) / 500:
            found.append(RequestFacts(request_id=f"q{len(found)}", cluster=cluster))
    return found


SPREAD = _spread()
ROLLOUTS = st.builds(
    Rollout,
    route=st.just("r"),
    live=st.sampled_from([None, "l"]),
    challenger=st.sampled_from([None, "c"]),
    stage=st.sampled_from([None, Stage.SHADOW, Stage.CANARY]),
    fraction=st.floats(0.0, 1.0),
    probe=st.floats(0.0, 1.0),
    audit_all=st.booleans(),
    live_threshold=st.none() | st.floats(0.0, 1.0),
    challenger_threshold=st.none() | st.floats(0.0, 1.0),
)
READY = st.sets(st.sampled_from(["c", "l"]))
