"""What a student of some coverage would save a month, by the log's traffic and prices."""

import msgspec

from collector import open_interactions
from retort import plan_money
from retort.plan_inputs import measure
from retort.plan_money import DAY, Money, Prices
from retort.plan_options import StudentCost
from retrainer.evaluation.cost import teacher_cost
from router import Config, RoutePolicy
from router.planning_ramp import Traffic


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """`month`: USD of 30 days live; None where `lacking` says what isn't known. `measured_over`: seconds of logged
    traffic that the requests a day are from; None where they were said."""

    requests_per_day: float | None
    measured_over: float | None = None
    cost_per_request: float | None
    month: Money | None
    lacking: str | None

    def lines(self) -> list[str]:
        """For people."""
        if self.month is None:
            return [f"  saving: not known, {self.lacking}"]
        over = f", as in {self.measured_over / 3600:.2g} h of traffic" if self.measured_over is not None else ""
        return [
            f"  saving: {self.month.net:,.2f} USD a month of {self._teacher:,.2f} ({self.requests_per_day:,.0f} "
            f"requests a day{over}, at {self.cost_per_request:.4g} USD; {self.month.student:,.2f} go into its serving, "
            f"{self.month.saved - self.month.student - self.month.net:,.2f} into watching it)"
        ]

    @property
    def _teacher(self) -> float:
        return (self.requests_per_day or 0.0) * (self.cost_per_request or 0.0) * plan_money.MONTH / DAY


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """`coverage`: the share that the student serves; None where nothing was trained. `student`: USD of one of its
    answers, None where it isn't known. `per_day`: requests; `cost`: USD of one of the teacher's answers; None: as in
    the log."""

    coverage: float | None
    student: float | None
    per_day: float | None
    cost: float | None


def saving(config: Config, policy: RoutePolicy, route: str, terms: Terms) -> Saving:
    """Raises LogError."""
    measured, coverage, per_day, cost = measure(config, route), terms.coverage, terms.per_day, terms.cost
    over = measured.seconds if per_day is None else None
    if per_day is None and measured.per_second is not None and policy.capture.rate:
        per_day = measured.per_second * DAY / policy.capture.rate
    if cost is None:
        with open_interactions(config) as interactions:
            cost = teacher_cost(interactions, route)
    lacking = None
    if coverage is None:
        lacking = "nothing was trained"
    elif per_day is None:
        lacking = "the log holds no traffic: say --per-day"
    elif cost is None:
        lacking = (
            "no cost is known (upstreams.NAME.prices; or the answers don't tell their tokens): say --cost-per-request"
        )
    elif terms.student is None and coverage:
        lacking = "no price of the student is known: retrain.gate.student_usd_per_month is shared by logged traffic"
    if lacking is not None or per_day is None or cost is None or coverage is None:
        return Saving(requests_per_day=per_day, cost_per_request=cost, month=None, lacking=lacking)
    eligible = measured.eligible / measured.requests if measured.requests else 1.0
    traffic = Traffic(per_second=per_day * eligible / DAY, coverage=coverage)
    student = StudentCost(usd=1000.0 * (terms.student or 0.0), per="1000")
    month = plan_money.live_month(policy, traffic, Prices(teacher=cost, judge=cost, student=student))
    return Saving(requests_per_day=per_day, measured_over=over, cost_per_request=cost, month=month, lacking=None)
