"""What an answer costs, teacher and student, in USD."""

import msgspec

from collector.interactions import Interactions
from collector.record import Interaction
from exporters.models.processors import processors
from retrainer.evaluation.latency import Latency
from router.decision import Arm
from router.policy_gate import GatePolicy

MONTH = 30 * 86400.0
# What clouds ask on demand for a virtual CPU of a general machine: 0.04 to 0.05 (AWS c7i and m7i, Azure D v5).
USD_PER_PROCESSOR_HOUR = 0.05


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """USD of one request: `teacher`, the mean of the log's latest answers, None where no price is known; `student`, by
    the operator's own figures, else by the time of its answers; None where the log doesn't tell the traffic that a
    month's price is for, or nothing was timed. `streamed`: the share of the latest requests that ask for a stream."""

    teacher: float | None
    student: float | None
    streamed: float = 0.0

    def saving(self, coverage: float = 1.0) -> float | None:
        """The share of the teacher's price that an answer of the student saves, where it is asked for every request and
        answers `coverage` of them; None where a price isn't known."""
        if self.teacher is None or self.student is None or self.teacher <= 0.0 or coverage <= 0.0:
            return None
        return 1.0 - self.student / (coverage * self.teacher)


def costs(interactions: Interactions, route: str, gate: GatePolicy, latency: Latency | None) -> Costs:
    """From the route's own latest records; what was imported has costs, and tells no traffic. `latency`: of the
    student. Raises LogError."""
    paid, times, streams = list[float](), list[float](), 0
    for record in interactions.latest(route):
        paid += _paid(record)
        if not record.source:
            times.append(record.at)
            streams += record.stream
    student = _by_the_answer(gate, latency)
    if gate.student_usd_per_month:
        seconds = max(times) - min(times) if len(times) > 1 else 0.0
        monthly = (len(times) - 1) * MONTH / seconds if seconds else None
        student = None if monthly is None or student is None else student + gate.student_usd_per_month / monthly
    streamed = streams / len(times) if times else 0.0
    return Costs(teacher=sum(paid) / len(paid) if paid else None, student=student, streamed=streamed)


def teacher_cost(interactions: Interactions, route: str) -> float | None:
    """USD of one of the teacher's latest answers, imported ones too; None where no price is known. Raises LogError."""
    paid = [usd for record in interactions.latest(route) for usd in _paid(record)]
    return sum(paid) / len(paid) if paid else None


def _paid(record: Interaction) -> list[float]:
    return [a.cost_usd for a in record.answers if a.arm is Arm.TEACHER and a.cost_usd is not None]


def _by_the_answer(gate: GatePolicy, latency: Latency | None) -> float | None:
    """USD of one answer, without a month's price: a busy machine gives one after the other."""
    hour = gate.student_usd_per_hour
    if hour is None:
        own = gate.student_usd_per_1000 or gate.student_usd_per_month
        hour = 0.0 if own else USD_PER_PROCESSOR_HOUR * processors()
    if not hour:
        return gate.student_usd_per_1000 / 1000.0
    return None if latency is None else gate.student_usd_per_1000 / 1000.0 + hour * latency.p50 / 3.6e6
