"""A route's evidence, told record by record."""

from typing import Any

from router import (
    Arm,
    EventKind,
    Evidence,
    Metric,
    Observation,
    RouteEvent,
    RoutePolicy,
    RouteState,
    Stage,
    Transition,
    batches,
    fold,
    initial,
    stages,
)

POLICY = {
    "teachers": ["o/m"],
    "student": {},
    "quality": {"margin": 0.07, "n_max": 3000},
    "latency": {"slo_ms": 100, "quantile": 0.9, "block": "1s"},
    "errors": {"promote_below": 0.05, "rollback_above": 0.1},
    "rollout": {"steps": [0.5, 1.0], "min_dwell": "20s", "min_requests": 30},
}


class Story:
    """Folds as it is told, with a tick after each request; `records` keeps all for a replay."""

    def __init__(self, **changes: object) -> None:
        self.state: RouteState = initial("r")
        self.records: list[tuple[int, Evidence]] = []
        self.decided: list[Transition] = []
        self.at = 1000.0
        self._folded = 0
        self.policy(**changes)

    def policy(self, **changes: object) -> None:
        policy = RoutePolicy.model_validate({**POLICY, **changes})
        self.event(EventKind.POLICY, policy=policy.model_dump(mode="json"))

    def tell(self, record: Evidence) -> None:
        """Add a record; a batch that is complete with it is folded."""
        self.records.append((3 * len(self.records) + 1, record))
        for batch in batches(self.records[self._folded :]):
            self.state, made = fold(self.state, batch)
            self.decided += made
            self._folded += len(batch)

    def tick(self, seconds: float = 0.0, **requests: int) -> None:
        self.at += seconds
        self.event(EventKind.TICK, requests=requests)

    def event(self, kind: EventKind, version: str | None = None, **data: object) -> None:
        self.tell(RouteEvent(id=f"e{len(self.records)}", at=self.at, route="r", kind=kind, version=version, data=data))

    def arrive(self, version: str = "v") -> None:
        self.event(EventKind.CANDIDATE, version, gate="passed")
        self.event(EventKind.READY, version)

    def operate(self, action: str, version: str | None = None) -> None:
        self.event(EventKind.OPERATOR, version, action=action, who="ann", why="because")

    def seen(
        self, metric: Metric, value: float, pair: float | None = None, *, version: str = "v", arm: Arm, **more: Any
    ) -> None:
        made = Observation(
            id=f"o{len(self.records)}", at=self.at, route="r", version=version, metric=metric, arm=arm, value=value,
            pair_value=pair, **{"propensity": 1.0, **more},
        )  # fmt: skip
        self.tell(made)

    def pairs(self, n: int, *, good: bool = True, version: str = "v", ms: float = 50.0) -> None:
        """Shadow pairs, one every 0.1 s."""
        for _ in range(n):
            self.at += 0.1
            self.seen(Metric.ERROR, 0.0, version=version, arm=Arm.TEACHER)
            self.seen(Metric.LATENCY, ms, 80.0, version=version, arm=Arm.TEACHER)
            self.seen(Metric.QUALITY, float(good), 1.0, version=version, arm=Arm.TEACHER)
            self.tick()

    def serves(self, n: int, *, error: bool = False, ms: float = 50.0, version: str = "v", every: float = 0.1) -> None:
        """Requests that the student served."""
        for _ in range(n):
            self.at += every
            self.seen(Metric.ERROR, float(error), version=version, arm=Arm.STUDENT)
            self.seen(Metric.LATENCY, float("inf") if error else ms, version=version, arm=Arm.STUDENT)
            self.tick()

    def stage(self, version: str = "v") -> Stage:
        return stages(self.state)[version]

    def to_canary(self, version: str = "v") -> None:
        self.arrive(version)
        self.pairs(300, version=version)
        assert self.stage(version) is Stage.CANARY

    def to_live(self, version: str = "v") -> None:
        self.to_canary(version)
        self.serves(2000, version=version)
        assert self.stage(version) is Stage.LIVE

    def causes(self) -> list[str]:
        return [d.cause for d in self.decided]
