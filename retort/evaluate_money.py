"""What a student of some coverage would save a month, by the log's traffic and prices."""

import msgspec

from collector import open_interactions
from retort import plan_money
from retort.plan_inputs import measure
from retort.plan_money import DAY, Money, Prices
from retort.plan_options import StudentCost
from router import Arm, Config, RoutePolicy
from router.planning_ramp import Traffic


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """`month`: USD of 30 days live; None where `lacking` says what isn't known. Serving the student costs nothing
    here; `retort plan --student-cost` counts it."""

    requests_per_day: float | None
    cost_per_request: float | None
    month: Money | None
    lacking: str | None

    def lines(self) -> list[str]:
        """For people."""
        if self.month is None:
            return [f"  saving: not known, {self.lacking}"]
        return [
            f"  saving: {self.month.net:,.2f} USD a month of {self._teacher:,.2f} ({self.requests_per_day:,.0f} "
            f"requests a day at {self.cost_per_request:.4g} USD; {self.month.saved - self.month.net:,.2f} go into "
            "watching it)"
        ]

    @property
    def _teacher(self) -> float:
        return (self.requests_per_day or 0.0) * (self.cost_per_request or 0.0) * plan_money.MONTH / DAY


def saving(
    config: Config,
    policy: RoutePolicy,
    route: str,
    coverage: float | None,
    per_day: float | None,
    cost: float | None,
) -> Saving:
    """`coverage`: the share that the student serves. `per_day`, `cost`: of one request; None: as in the log, imported
    answers' costs included. Raises LogError."""
    measured = measure(config, route)
    if per_day is None and measured.per_second is not None and policy.capture.rate:
        per_day = measured.per_second * DAY / policy.capture.rate
    if cost is None:
        cost = measured.cost if measured.cost is not None else _imported_cost(config, route)
    lacking = None
    if coverage is None:
        lacking = "nothing was trained"
    elif per_day is None:
        lacking = "the log holds no traffic: say --per-day"
    elif cost is None:
        lacking = "no price is known: set upstreams.NAME.prices, or say --cost-per-request"
    if lacking is not None or per_day is None or cost is None or coverage is None:
        return Saving(requests_per_day=per_day, cost_per_request=cost, month=None, lacking=lacking)
    eligible = measured.eligible / measured.requests if measured.requests else 1.0
    traffic = Traffic(per_second=per_day * eligible / DAY, coverage=coverage)
    month = plan_money.live_month(policy, traffic, Prices(teacher=cost, judge=cost, student=StudentCost()))
    return Saving(requests_per_day=per_day, cost_per_request=cost, month=month, lacking=None)


def _imported_cost(config: Config, route: str) -> float | None:
    with open_interactions(config) as interactions:
        costs = [
            answer.cost_usd
            for record in interactions.latest(route)
            for answer in record.answers
            if answer.arm is Arm.TEACHER and answer.cost_usd is not None
        ]
    return sum(costs) / len(costs) if costs else None
