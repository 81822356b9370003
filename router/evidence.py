"""The evidence log's two records. One route's records have one order; rollout state is a fold over them.

They hold no text, so they outlive the interactions that they came from.
"""

from enum import StrEnum
from typing import Any

import msgspec

from router.decision import Arm


class Metric(StrEnum):
    """What was observed.

    quality: a paired score in [0, 1]; value is the student's, pair_value the reference's.
    latency, ttft: milliseconds; value is the student's, pair_value the teacher's on a shadow pair. A plain request
    yields `latency`, a stream `ttft`: the one that its SLO is about. A student request that failed, or whose client
    gave up after the SLO, has value inf.
    error: 0.0 or 1.0, of a student request (also one that a fallback rescued).
    exposure: a conversation's first answer while outcomes are counted; value 0.0, id by version and cluster.
    outcome: in [0, 1], what a conversation came to within the window after its exposure; without a report 0.0.
    """

    QUALITY = "quality"
    TTFT = "ttft"
    LATENCY = "latency"
    ERROR = "error"
    EXPOSURE = "exposure"
    OUTCOME = "outcome"


class Observation(msgspec.Struct, frozen=True, kw_only=True, tag="observation"):
    """One measurement of one student version.

    `at`: Unix seconds. `arm`: the arm that served the user (teacher while the student only shadowed).
    `propensity`: the probability of that arm. `cluster`: hashed conversation key. `confidence`: of the student's
    answer, in [0, 1]; 0 where the input is unlike anything it learnt from. `deferred`: the student was to serve and
    was not sure enough, so that the teacher answered. `inclusion`: of a quality pair, the probability that a request
    like this one, with this arm and this confidence, became a pair. `request_id`: of an exposure, by which its outcome
    will be reported. `measure`: of a quality pair, RoutePolicy.measure by which it was scored: pairs of another
    measure than the fold's policy has are left out. Empty: of any. `along`: of a call that was lost along with
    another, as when the version's process ends: that is one failure, which the other tells.
    """

    id: str
    at: float
    route: str
    version: str
    metric: Metric
    arm: Arm
    propensity: float
    value: float
    pair_value: float | None = None
    confidence: float | None = None
    cluster: str = ""
    deferred: bool = False
    along: bool = False
    inclusion: float = 1.0
    request_id: str | None = None
    measure: str = ""


class EventKind(StrEnum):
    """What happened to a route. `data` holds what the name lists."""

    POLICY = "policy"  # policy: the RoutePolicy as JSON data
    CANDIDATE = "candidate"  # gate: passed | overridden, who, why; with `selective` also thresholds: of confidence,
    # falling, and shares: of alpha, one each
    READY = "ready"  # engine, url
    UNREADY = "unready"  # reason, hopeless (trying again would not help)
    HARD_STOP = "hard_stop"  # errors, window, revision (of the rollout that the worker saw)
    OPERATOR = "operator"  # action: promote | rollback | pause | resume | pin | unpin, who, why
    TICK = "tick"  # a clock reading by the promoter; the collector adds requests:
    # the eligible ones since the last tick, counted by the rollout revision that decided them


class RouteEvent(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Something that happened to a route, or to one version of it."""

    id: str
    at: float
    route: str
    kind: EventKind
    version: str | None = None
    data: dict[str, Any] = {}


Evidence = Observation | RouteEvent

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Evidence] = msgspec.msgpack.Decoder(Evidence)


def encode(record: Evidence) -> bytes:
    """MessagePack, because values may be inf."""
    return _encoder.encode(record)


def decode(data: bytes) -> Evidence:
    """Inverse of encode. Raises msgspec.ValidationError."""
    return _decoder.decode(data)
