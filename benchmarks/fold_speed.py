"""How fast a log is replayed: a million observations, decoded and folded on one core.

    scripts/bench fold_speed [--observations 1000000]     some minutes; writes benchmarks/results/fold_speed.json

A version in shadow yields three observations a request (error, latency, quality), and the promoter's clock ticks after
every REQUESTS of them. A fold's cost is a batch's more than an observation's, so that a quiet route's log takes longer.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import results_file

from router import (
    Arm,
    EventKind,
    Evidence,
    Metric,
    Observation,
    RouteEvent,
    RoutePolicy,
    Stage,
    batches,
    decode_evidence,
    encode_evidence,
    fold,
    initial,
    stages,
)

REQUESTS = (5, 20, 100)
ENDLESS: dict[str, object] = {
    "teachers": ["up/m"],
    "student": {},
    "quality": {"margin": 0.01, "n_max": 10**9},
    "rollout": {"min_dwell": 10**9, "no_pairs_requests": 10**9},
}  # never decided: half of its answers are slower than the teacher
POLICIES = {"whole": ENDLESS, "selective": {**ENDLESS, "selective": {"max_risk": 0.01}}}


def records(policy: dict[str, object], observations: int, requests: int) -> Iterator[Evidence]:
    """A log with so many observations."""
    made = RoutePolicy.model_validate(policy).model_dump(mode="json")
    yield RouteEvent(id="p", at=0.0, route="r", kind=EventKind.POLICY, data={"policy": made})
    thresholds = [0.95 - n * 0.045 for n in range(20)]
    yield RouteEvent(
        id="c",
        at=1.0,
        route="r",
        kind=EventKind.CANDIDATE,
        version="v",
        data={"gate": "passed", "thresholds": thresholds},
    )
    yield RouteEvent(id="y", at=2.0, route="r", kind=EventKind.READY, version="v")
    rng = np.random.default_rng(0)
    for n in range(observations // 3):
        at = 3.0 + n / requests
        sure = float(rng.random())
        for metric, value, pair in (
            (Metric.ERROR, 0.0, None),
            (Metric.LATENCY, 10.0 + 50.0 * float(rng.random()), 35.0),
            (Metric.QUALITY, float(rng.random() > 0.005), 1.0),
        ):
            yield Observation(
                id=f"{n}:{metric}", at=at, route="r", version="v", metric=metric, arm=Arm.TEACHER, propensity=1.0,
                value=value, pair_value=pair, confidence=sure,
            )  # fmt: skip
        if n % requests == requests - 1:
            yield RouteEvent(id=f"t{n}", at=at + 0.01, route="r", kind=EventKind.TICK)


def seconds(policy: dict[str, object], observations: int, requests: int) -> float:
    """CPU seconds to decode and fold a log."""
    raw = [encode_evidence(record) for record in records(policy, observations, requests)]
    began = time.process_time()
    state = initial("r")
    for batch in batches((offset, decode_evidence(data)) for offset, data in enumerate(raw)):
        state, _ = fold(state, batch)
    took = time.process_time() - began
    if stages(state)["v"] is not Stage.SHADOW:
        raise SystemExit("the version has left shadow, so that not all of the log was folded in full")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=1_000_000)
    options = parser.parse_args()
    figures, goals = {}, []
    for name, policy in POLICIES.items():
        for requests in REQUESTS:
            took = seconds(policy, options.observations, requests) * 1e6 / options.observations
            figures[f"{name}, {requests} requests a tick"] = round(took, 2)
            print(f"{name}, {requests} requests a tick: {took:.2f} s a million observations", flush=True)
        for requests in REQUESTS[1:]:
            took = figures[f"{name}, {requests} requests a tick"]
            goals.append(results_file.goal(f"seconds a million, {name}, {requests} requests a tick", took, "<=", 10.0))
    results_file.write("fold_speed", {"seconds a million observations, one core": figures}, goals)


if __name__ == "__main__":
    main()
