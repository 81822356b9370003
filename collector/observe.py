"""From a finished exchange to observations of errors and latency. Pure: the same exchange always yields the same ones,
ids included. What its pairs say of quality: see collector.pairs.

Intention to treat: a student's failure that a fallback rescued is an error and a missed SLO of the student; only its
answer is left out of quality. A request that both arms refuse says nothing of the student.

An answer that was deferred to the teacher is no failure. Its latency is what the client saw, the wait for the student
included; it stands beside no time of the teacher, which is a part of it. Where the teacher then failed, the time says
nothing of the student.

A call that its client gave up says nothing either, but for one thing: whoever left without an answer after slo_ms
has waited too long, whatever would have come. Left out, a student that hangs until its clients lose patience would
keep its SLO. Such a call has endless latency, as a failed one has, and is no failure. A shadow call has no client: it
is cut off when the gateway stops, and says nothing.
"""

import math
from collections.abc import Sequence

import msgspec

from collector.frames import Call, Exchange, refused_by_both
from collector.parse import Completion
from router import Arm, Metric, Observation, RoutePolicy

Answered = tuple[Call, Completion | None]


class Seen(msgspec.Struct, frozen=True):
    """A student's part in an exchange. `arm`: the arm that was to serve the user. `said`: None where nothing could be
    read. `teacher`: the first teacher's answer that it may be compared with."""

    call: Call
    said: Completion | None
    arm: Arm
    teacher: Answered | None

    @property
    def deferred(self) -> bool:
        """Whether it was to serve, and was not sure enough."""
        return self.call.deferred


def students(exchange: Exchange, answers: Sequence[Answered]) -> list[Seen]:
    """`answers`: the served call and the shadows, each with what it said (None: nothing readable)."""
    served, shadows = answers[0], answers[1:]
    teacher = next((a for a in answers if a[0].arm is Arm.TEACHER and a[0].error is None), None)
    found: list[Seen] = []
    if exchange.decision.arm is Arm.STUDENT:
        attempts = [a for a in [(call, None) for call in exchange.failed] + [served] if a[0].arm is Arm.STUDENT]
        for attempt in attempts[:1]:
            if attempt is not served and refused_by_both(attempt[0].status, served[0].status):
                continue
            found.append(Seen(*attempt, Arm.STUDENT, teacher if attempt is served else None))
    for shadow in shadows:
        if shadow[0].arm is Arm.STUDENT:
            found.append(Seen(*shadow, Arm.STUDENT if shadow[0].deferred else Arm.TEACHER, teacher))
    return [seen for seen in found if seen.call.version or exchange.decision.version]


def observations(exchange: Exchange, answers: Sequence[Answered], policy: RoutePolicy) -> list[Observation]:
    """What the students' calls say of errors and of latency. `answers`: as for `students`."""
    metric = Metric.TTFT if exchange.stream else Metric.LATENCY
    slo_ms = policy.latency.slo_ms
    found: list[Observation] = []
    for seen in students(exchange, answers):
        found += _deferred(exchange, seen, metric, slo_ms) if seen.deferred else _called(exchange, seen, metric, slo_ms)
    return found


def observation(
    exchange: Exchange,
    seen: Seen,
    metric: Metric,
    value: float,
    pair_value: float | None = None,
    *,
    inclusion: float = 1.0,
    measure: str = "",
) -> Observation:
    """One measurement of the student that was seen."""
    version = seen.call.version or exchange.decision.version or ""
    return Observation(
        id=f"{exchange.id}:{metric}:{version}",
        at=exchange.at,
        route=exchange.decision.route,
        version=version,
        metric=metric,
        arm=seen.arm,
        propensity=exchange.decision.propensity,
        value=value,
        pair_value=pair_value,
        confidence=seen.call.confidence,
        cluster=exchange.cluster,
        deferred=seen.deferred,
        along=seen.call.along,
        inclusion=inclusion,
        measure=measure,
    )


def owes_a_pair(exchange: Exchange) -> bool:
    """Whether a ready student could have been compared on this exchange: the request was eligible, and no teacher
    was asked in vain."""
    calls = (exchange.served, *exchange.failed, *exchange.shadows)
    return exchange.decision.eligible and not any(c.arm is Arm.TEACHER and c.error is not None for c in calls)


def _called(exchange: Exchange, seen: Seen, metric: Metric, slo_ms: float) -> list[Observation]:
    call, teacher = seen.call, seen.teacher
    if call.error == "cancelled":
        missed = seen.arm is Arm.STUDENT and _given_up_late(call.ttft_ms, call.total_ms, metric, slo_ms)
        return [observation(exchange, seen, metric, math.inf)] if missed else []
    failed = call.error is not None
    paired = _milliseconds(teacher[0], metric) if teacher else None
    own = math.inf if failed else _milliseconds(call, metric)
    found = [observation(exchange, seen, Metric.ERROR, float(failed))]
    if own is not None:
        found.append(observation(exchange, seen, metric, own, paired))
    return found


def _deferred(exchange: Exchange, seen: Seen, metric: Metric, slo_ms: float) -> list[Observation]:
    told = observation(exchange, seen, Metric.ERROR, 0.0)
    if exchange.served.error == "cancelled":
        late = _given_up_late(exchange.ttft_ms, exchange.total_ms, metric, slo_ms)
        return [observation(exchange, seen, metric, math.inf)] if late else []
    waited = exchange.ttft_ms if metric is Metric.TTFT else exchange.total_ms
    if exchange.served.error is not None or waited is None:
        return [told]
    return [told, observation(exchange, seen, metric, waited)]


def _milliseconds(call: Call, metric: Metric) -> float | None:
    return call.ttft_ms if metric is Metric.TTFT else call.total_ms


def _given_up_late(ttft_ms: float | None, total_ms: float | None, metric: Metric, slo_ms: float) -> bool:
    """Whether what its client gave up had missed its SLO (milliseconds) already: a stream's ends with its first
    token."""
    unanswered = metric is Metric.LATENCY or ttft_ms is None
    return unanswered and total_ms is not None and total_ms > slo_ms
