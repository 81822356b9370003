"""A stream of a student's answers through the real rollout: folded as the promoter folds it, served as gateways do.

The version arrives as its training cycle would send it. In shadow each request makes a pair. In service an answer below
the threshold in force is deferred, which makes a pair too; one above it is served, and audited at the audit rate. The
latency is good and nothing fails: it is about quality.
"""

import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    view,
)

Floats = NDArray[np.float64]
ROUTE, VERSION = "r", "v"
PER_TICK = 25  # requests, at 25 a second
POLICY = {
    "teachers": ["up/m"],
    "student": {},
    "quality": {"margin": 0.01, "audit_rate": 0.25, "n_max": 20_000},
    "latency": {"slo_ms": 1000, "quantile": 0.8, "block": "1s"},
    "errors": {"promote_below": 0.02, "rollback_above": 0.04},
    "rollout": {"steps": [1.0], "min_dwell": "0s", "min_requests": 1, "holdback": 0.0},
}


class Replay(NamedTuple):
    """Of each request (n): `served`, whether the student answered it; `at`, the threshold in force (2 for none).
    `certified`: requests until the first certificate moved traffic, None if never. `causes`: of the decisions, with
    the requests before each. `end`: the threshold at the end, 2 for none; `bound`: the risk bound shown then."""

    served: NDArray[np.bool_]
    at: Floats
    certified: int | None
    causes: list[tuple[int, str]]
    end: float
    bound: float | None


def replay(
    confidence: Floats,
    loss: Floats,
    thresholds: tuple[float, ...],
    shares: tuple[float, ...],
    *,
    max_risk: float,
    min_coverage: float = 0.3,
    seed: int = 0,
) -> Replay:
    """Fold n requests with these confidences and losses (both in [0, 1])."""
    told = _Told(max_risk, min_coverage, thresholds, shares)
    audits, audit_rate = random.Random(seed), told.policy.quality.audit_rate
    n = len(loss)
    served, at = np.zeros(n, dtype=np.bool_), np.full(n, 2.0)
    for i, (sure, lost) in enumerate(zip(confidence.tolist(), loss.tolist(), strict=True)):
        at[i] = told.threshold
        served[i] = sure >= told.threshold
        told.seen(i, Metric.ERROR, 0.0, served=bool(served[i]))
        told.seen(i, Metric.LATENCY, 20.0, 400.0, served=bool(served[i]))
        inclusion = audit_rate if served[i] else 1.0
        if audits.random() < inclusion:
            told.seen(
                i,
                Metric.QUALITY,
                1.0 - lost,
                1.0,
                served=bool(served[i]),
                confidence=sure,
                inclusion=inclusion,
                deferred=told.serving and not served[i],
            )
        if i % PER_TICK == PER_TICK - 1:
            told.tick(i)
    guard = told.state.guards.get(VERSION)
    bound = None
    if guard is not None and guard.selective is not None and (force := guard.selective.in_force) is not None:
        bound = force.bound(guard.alpha)
    first = next((when for when, cause in told.causes if cause == "selective_and_latency_passed"), None)
    return Replay(served, at, first, told.causes, told.threshold, bound)


class _Told:
    """The log so far, folded up to its last complete batch."""

    def __init__(
        self, max_risk: float, min_coverage: float, thresholds: tuple[float, ...], shares: tuple[float, ...]
    ) -> None:
        selective = {"max_risk": max_risk, "min_coverage": min_coverage}
        self.policy = RoutePolicy.model_validate({**POLICY, "selective": selective})
        self.state: RouteState = initial(ROUTE)
        self.causes: list[tuple[int, str]] = []
        self.threshold = 2.0
        self._open: list[tuple[int, Evidence]] = []
        self._count, self._now = 0, 1_000_000.0
        self._event(EventKind.POLICY, None, policy=self.policy.model_dump(mode="json"))
        data = {"gate": "passed", "mode": "selective", "thresholds": list(thresholds), "shares": list(shares)}
        self._event(EventKind.CANDIDATE, VERSION, **data)
        self._event(EventKind.READY, VERSION, engine="e", url="u")

    @property
    def serving(self) -> bool:
        return self.threshold <= 1.0

    def seen(
        self, i: int, metric: Metric, value: float, pair: float | None = None, *, served: bool, **more: object
    ) -> None:
        arm = Arm.STUDENT if served else Arm.TEACHER
        if metric is Metric.ERROR and not served:
            return
        if metric is Metric.LATENCY and served:
            pair = None
        made = Observation(
            id=f"{i}:{metric}", at=self._now + (i % PER_TICK) / PER_TICK, route=ROUTE, version=VERSION, metric=metric,
            arm=arm, propensity=1.0, value=value, pair_value=pair, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        self._add(made)

    def tick(self, i: int) -> None:
        self._now += 1.0
        for made in self._event(EventKind.TICK, None, requests={}):
            self.causes.append((i + 1, made.cause))
        self.threshold = self._in_service()

    def _in_service(self) -> float:
        stage, shown = stages(self.state)[VERSION], view(self.state)
        if stage is Stage.CANARY:
            return 2.0 if shown.challenger_threshold is None else shown.challenger_threshold
        if stage is Stage.LIVE:
            return 2.0 if shown.live_threshold is None else shown.live_threshold
        return 2.0

    def _event(self, kind: EventKind, version: str | None, **data: object) -> list[Transition]:
        made = RouteEvent(id=f"e{self._count}", at=self._now, route=ROUTE, kind=kind, version=version, data=data)
        return self._add(made)

    def _add(self, record: Evidence) -> list[Transition]:
        self._count += 1
        self._open.append((self._count, record))
        decided: list[Transition] = []
        for batch in batches(self._open) if isinstance(record, RouteEvent) else ():
            self.state, made = fold(self.state, batch)
            decided += made
            self._open = self._open[len(batch) :]
        return decided
