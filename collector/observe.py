"""From a finished exchange to observations. Pure: the same exchange always yields the same ones, ids included.

Intention to treat: a student's failure that a fallback rescued is an error and a missed SLO of the student; only its
answer is left out of quality. A request that both arms refuse says nothing of the student.

A call that its client gave up says nothing either, but for one thing: whoever left without an answer after slo_ms
has waited too long, whatever would have come. Left out, a student that hangs until its clients lose patience would
keep its SLO. Such a call has endless latency, as a failed one has, and is no failure. A shadow call has no client: it
is cut off when the gateway stops, and says nothing.
"""

import math
from collections.abc import Sequence

from collector.frames import Call, Exchange, refused_by_both
from collector.parse import Completion
from router import Arm, Metric, Observation, RoutePolicy, score

Answered = tuple[Call, Completion | None]


def observations(exchange: Exchange, answers: Sequence[Answered], policy: RoutePolicy) -> list[Observation]:
    """`answers`: the served call and the shadows, each with what it said (None: nothing readable)."""
    served, shadows = answers[0], answers[1:]
    teacher = next((a for a in answers if a[0].arm is Arm.TEACHER and a[0].error is None), None)
    found: list[Observation] = []
    if exchange.decision.arm is Arm.STUDENT:
        attempts = [a for a in [(call, None) for call in exchange.failed] + [served] if a[0].arm is Arm.STUDENT]
        for attempt in attempts[:1]:
            if attempt is not served and refused_by_both(attempt[0].status, served[0].status):
                continue
            found += _student(exchange, attempt, teacher if attempt is served else None, policy, arm=Arm.STUDENT)
    for shadow in shadows:
        if shadow[0].arm is Arm.STUDENT:
            found += _student(exchange, shadow, teacher, policy, arm=Arm.TEACHER)
    return found


def owes_a_pair(exchange: Exchange) -> bool:
    """Whether a ready student could have been compared on this exchange: the request was eligible, and no teacher
    was asked in vain."""
    calls = (exchange.served, *exchange.failed, *exchange.shadows)
    return exchange.decision.eligible and not any(c.arm is Arm.TEACHER and c.error is not None for c in calls)


def _student(
    exchange: Exchange, student: Answered, teacher: Answered | None, policy: RoutePolicy, *, arm: Arm
) -> list[Observation]:
    call, said = student
    version = call.version or exchange.decision.version
    if version is None:
        return []

    def observed(metric: Metric, value: float, pair_value: float | None = None) -> Observation:
        return Observation(
            id=f"{exchange.id}:{metric}:{version}",
            at=exchange.at,
            route=exchange.decision.route,
            version=version,
            metric=metric,
            arm=arm,
            propensity=exchange.decision.propensity,
            value=value,
            pair_value=pair_value,
            confidence=call.confidence,
            cluster=exchange.cluster,
        )

    metric = Metric.TTFT if exchange.stream else Metric.LATENCY
    if call.error == "cancelled":
        missed = arm is Arm.STUDENT and _given_up_late(call, metric, policy.latency.slo_ms)
        return [observed(metric, math.inf)] if missed else []
    failed = call.error is not None
    paired = _milliseconds(teacher[0], metric) if teacher else None
    own = math.inf if failed else _milliseconds(call, metric)
    found = [observed(Metric.ERROR, float(failed))]
    if own is not None:
        found.append(observed(metric, own, paired))
    if teacher and teacher[1] and not failed:
        quality = _quality(policy, said, teacher[1])
        if quality is not None:
            found.append(observed(Metric.QUALITY, quality, 1.0))
    return found


def _milliseconds(call: Call, metric: Metric) -> float | None:
    return call.ttft_ms if metric is Metric.TTFT else call.total_ms


def _given_up_late(call: Call, metric: Metric, slo_ms: float) -> bool:
    """Whether a cancelled call had missed its SLO (milliseconds) already: a stream's ends with its first token."""
    unanswered = metric is Metric.LATENCY or call.ttft_ms is None
    return unanswered and call.total_ms is not None and call.total_ms > slo_ms


def _quality(policy: RoutePolicy, student: Completion | None, teacher: Completion) -> float | None:
    """The score of the student's answer; None where the teacher's is nothing to compare with."""
    if teacher.finish_reason == "length":
        return None
    try:
        return score(
            policy.quality.score,
            answer=student.message if student else None,
            reference=teacher.message,
            finish_reason=student.finish_reason if student else None,
        ).value
    except ValueError:
        return None
