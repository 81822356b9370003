"""What an answer costs, teacher and student, in USD."""

import msgspec

from collector.interactions import Interactions
from router.decision import Arm
from router.policy_gate import GatePolicy

LATEST = 2000  # records that prices and traffic are measured on
MONTH = 30 * 86400.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """USD of one request: `teacher`, the mean of the log's latest answers, None where no price is known; `student`, by
    the operator's own figures, None where they are for a month and the log doesn't tell the traffic."""

    teacher: float | None
    student: float | None

    def saving(self, coverage: float = 1.0) -> float | None:
        """The share of the teacher's price that an answer of the student saves, where it is asked for every request and
        answers `coverage` of them; None where a price isn't known."""
        if self.teacher is None or self.student is None or self.teacher <= 0.0 or coverage <= 0.0:
            return None
        return 1.0 - self.student / (coverage * self.teacher)


def costs(interactions: Interactions, route: str, gate: GatePolicy) -> Costs:
    """From the route's own latest traffic; what was imported tells no traffic. Raises LogError."""
    paid: list[float] = []
    times: list[float] = []
    for _, record in interactions.of(route, start=max(interactions.end(route) - LATEST, 0)):
        if record.source:
            continue
        times.append(record.at)
        paid += [a.cost_usd for a in record.answers if a.arm is Arm.TEACHER and a.cost_usd is not None]
    student: float | None = gate.student_usd_per_1000 / 1000.0
    if gate.student_usd_per_month:
        seconds = max(times) - min(times) if len(times) > 1 else 0.0
        monthly = (len(times) - 1) * MONTH / seconds if seconds else None
        student = None if monthly is None or student is None else student + gate.student_usd_per_month / monthly
    return Costs(teacher=sum(paid) / len(paid) if paid else None, student=student)
