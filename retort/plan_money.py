"""What a rollout costs and what a live student saves, in USD, from calls for each eligible request. Pure.

A shadow pair costs no teacher call beyond the one that served the user anyway. What costs: audits (the teacher is asked
besides), the second teacher call of `reference: self`, two judge calls a pair with `reference: judge`, and `parallel`.
"""

import msgspec

from retort.plan_options import StudentCost
from router import RoutePolicy
from router.planning_ramp import Traffic, pair_rate, shadowed

DAY = 86400.0
MONTH = 30 * DAY
JUDGE_CALLS = 2.0  # a pair is judged in both orders


class Prices(msgspec.Struct, frozen=True):
    """USD of one call of the teacher, of one of the judge, and of the student."""

    teacher: float
    judge: float
    student: StudentCost


class Span(msgspec.Struct, frozen=True):
    """A time with one share of traffic. `fraction`: None in shadow."""

    seconds: float
    fraction: float | None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """USD. `saved`: teacher calls that the student's answers spare. The rest are costs; `net` is what remains."""

    saved: float
    audits: float
    second_calls: float
    judge: float
    student: float
    net: float


def of(spans: list[Span], policy: RoutePolicy, traffic: Traffic, prices: Prices) -> Money:
    """The sum over spans of time."""
    saved = audits = second = judge = student = 0.0
    for span in spans:
        requests = span.seconds * traffic.per_second
        served = (span.fraction or 0.0) * traffic.coverage
        deferred = (span.fraction or 0.0) - served
        pairs = pair_rate(policy, traffic, span.fraction)
        unsure = 0.0 if span.fraction is None else policy.rollout.holdback * (1.0 - traffic.coverage)
        asked = shadowed(policy, traffic) if span.fraction is None else span.fraction + policy.rollout.holdback
        saved += requests * served * prices.teacher
        audits += requests * served * policy.quality.audit_rate * prices.teacher
        if policy.quality.reference == "self":
            twice = pairs if span.fraction is None else policy.quality.audit_rate * asked
            second += requests * twice * prices.teacher
        if policy.quality.reference == "judge":
            judge += requests * (pairs + deferred + unsure) * JUDGE_CALLS * prices.judge
        if prices.student.per == "month":
            student += span.seconds / MONTH * prices.student.usd
        else:
            student += requests * asked * prices.student.usd / 1000.0
    net = saved - audits - second - judge - student
    return Money(saved=saved, audits=audits, second_calls=second, judge=judge, student=student, net=net)


def live_month(policy: RoutePolicy, traffic: Traffic, prices: Prices) -> Money:
    """30 days of a live student, after `parallel`."""
    return of([Span(MONTH, 1.0 - policy.rollout.holdback)], policy, traffic, prices)


def parallel_cost(policy: RoutePolicy, traffic: Traffic, prices: Prices) -> float:
    """The teacher asked besides for every answer that isn't audited anyway, for `parallel` seconds after going live."""
    served = (1.0 - policy.rollout.holdback) * traffic.coverage
    calls = policy.rollout.parallel * traffic.per_second * served * (1.0 - policy.quality.audit_rate)
    return calls * prices.teacher


def payback_days(training: float, parallel: float, trial: Money, month: Money, trial_days: float) -> float | None:
    """Days from entering shadow until what was saved equals what was spent; None where it never does. At the earliest
    the day it goes live, even where the canary alone has paid it."""
    if month.net <= 0.0:
        return None
    owed = training + parallel - trial.net
    return trial_days + max(owed, 0.0) / (month.net / 30.0)
