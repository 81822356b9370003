"""`retort plan ROUTE`: how long a rollout would take at this traffic, what its ramp exposes, and what it saves."""

import msgspec
import numpy as np

from gateway.hard_stop import ERRORS, WINDOW
from retort import plan_money
from retort.plan_assume import Assumed, assume
from retort.plan_money import DAY, Span
from retort.plan_options import PlanOptions
from retort.plan_print import print_plan
from retort.plan_report import (
    Assumptions,
    Exposure,
    HardStop,
    Plan,
    Savings,
    Scenario,
    StageRow,
    figure,
    finite,
)
from router import Config, RoutePolicy, rollout_tests
from router.planning import Expected
from router.planning_harm import POINTS, pairs_to_alarm, worse, wrong
from router.planning_ramp import ShadowPlan, StagePlan, Traffic, pair_rate, ramp, shadow

replace = msgspec.structs.replace


class Rollout(msgspec.Struct, frozen=True):
    """One simulated trial: its time in shadow and its steps."""

    shadow: ShadowPlan
    steps: list[StagePlan]

    @property
    def stages(self) -> list[StagePlan]:
        """In order."""
        return [self.shadow.stage, *self.steps]

    @property
    def seconds(self) -> np.ndarray:
        """From entering shadow until live, on each path."""
        return np.asarray(np.sum([stage.seconds for stage in self.stages], axis=0))


def show(config: Config, route: str, options: PlanOptions, *, as_json: bool) -> int:
    """Print the plan; returns 0. Raises StartError."""
    found = make(config, route, options)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print_plan(found)
    return 0


def make(config: Config, route: str, options: PlanOptions) -> Plan:
    """The plan. Raises StartError."""
    assumed = assume(config, route, options)
    policy = assumed.policy
    alpha = rollout_tests.alpha(policy.quality, assumed.number)
    steps = {c: ramp(policy, assumed.expected, alpha, replace(assumed.traffic, coverage=c)) for c in assumed.coverage}
    scenarios = [
        _scenario(assumed, margin, coverage, alpha, steps[coverage])
        for coverage in assumed.coverage
        for margin in assumed.margins
    ]
    middle = assumed.coverage[(len(assumed.coverage) - 1) // 2]
    traffic = replace(assumed.traffic, coverage=middle)
    rollout = Rollout(shadow(policy, assumed.expected, alpha, traffic), steps[middle])
    notes = [*assumed.notes, *_doubts(assumed, middle)]
    if not np.isfinite(rollout.seconds).mean() >= 0.5:
        notes.append("it would not go live in half of the runs, so the trial's cost is not told")
    return Plan(
        route=route,
        assumptions=_assumptions(assumed, alpha),
        scenarios=scenarios,
        stages=[_stage(stage) for stage in rollout.stages],
        requests_before_live=figure(np.sum([stage.requests for stage in rollout.stages], axis=0)),
        exposures=_exposures(policy, assumed.expected, traffic),
        hard_stop=HardStop(errors=ERRORS, window=WINDOW, workers=config.workers, most_requests=WINDOW * config.workers),
        savings=_savings(assumed, traffic, rollout, options.training_cost),
        notes=notes,
    )


def _scenario(assumed: Assumed, margin: float, coverage: float, alpha: float, steps: list[StagePlan]) -> Scenario:
    policy = _with_margin(assumed.policy, margin)
    traffic = replace(assumed.traffic, coverage=coverage)
    rollout = Rollout(shadow(policy, assumed.expected, alpha, traffic), steps)
    month = plan_money.live_month(policy, traffic, assumed.prices) if assumed.prices else None
    return Scenario(
        margin=margin,
        coverage=coverage if policy.selective else None,
        pairs=figure(rollout.shadow.pairs.to_pass),
        days_to_decision=figure(rollout.shadow.decided, 1.0 / DAY),
        days_to_live=figure(rollout.seconds, 1.0 / DAY),
        probability=float(np.isfinite(rollout.seconds).mean()),
        saved_per_month=month.net if month else None,
    )


def _with_margin(policy: RoutePolicy, margin: float) -> RoutePolicy:
    if policy.selective:
        return policy.model_copy(update={"selective": policy.selective.model_copy(update={"max_risk": margin})})
    return policy.model_copy(update={"quality": policy.quality.model_copy(update={"margin": margin})})


def _stage(stage: StagePlan) -> StageRow:
    return StageRow(
        name=stage.name,
        fraction=stage.fraction,
        days=figure(stage.seconds, 1.0 / DAY),
        requests=figure(stage.requests),
        needs={need: finite(seconds / DAY) for need, seconds in stage.needs.items()},
        limit=stage.limit,
    )


def _exposures(policy: RoutePolicy, expected: Expected, traffic: Traffic) -> list[Exposure]:
    """At the first step, where few see it but pairs are rare, and live."""
    cases = [(f"{points * 100:.0f} points", worse(policy, expected, points)) for points in POINTS]
    cases.append(("all wrong", wrong()))
    last = 1.0 - policy.rollout.holdback
    places = [("step 1", min(policy.rollout.steps[0], last)), ("live", last)]
    return [
        _exposure(case, bad, at, fraction, pairs, policy, traffic)
        for case, bad in cases
        for pairs in [pairs_to_alarm(policy, expected, bad)]
        for at, fraction in places
    ]


def _exposure(
    case: str, bad: Expected, at: str, fraction: float, pairs: np.ndarray, policy: RoutePolicy, traffic: Traffic
) -> Exposure:
    served = fraction * traffic.coverage
    rate = pair_rate(policy, traffic, fraction)
    requests = pairs / rate if rate else np.full_like(pairs, np.inf)
    return Exposure(
        case=case,
        at=at,
        fraction=fraction,
        pairs=figure(pairs),
        hours=figure(requests, 1.0 / traffic.per_second / 3600.0),
        answers=figure(requests, served),
        wrong=figure(requests, served * bad.loss),
    )


def _savings(assumed: Assumed, traffic: Traffic, rollout: Rollout, training: float | None) -> Savings | None:
    days = figure(rollout.seconds, 1.0 / DAY).median
    if assumed.prices is None or days is None:
        return None
    policy, prices = assumed.policy, assumed.prices
    spans = [Span(_median(rollout.shadow.stage), None), *(Span(_median(s), s.fraction) for s in rollout.steps)]
    trial = plan_money.of(spans, policy, traffic, prices)
    month = plan_money.live_month(policy, traffic, prices)
    parallel = plan_money.parallel_cost(policy, traffic, prices)
    payback = None if training is None else plan_money.payback_days(training, parallel, trial, month, days)
    return Savings(trial=trial, month=month, parallel=parallel, training=training, payback_days=payback)


def _median(stage: StagePlan) -> float:
    return figure(stage.seconds).median or 0.0


def _assumptions(assumed: Assumed, alpha: float) -> Assumptions:
    policy, expected = assumed.policy, assumed.expected
    return Assumptions(
        requests_per_day=assumed.per_day,
        eligible_share=assumed.eligible,
        mode="selective" if policy.selective else "whole",
        reference=policy.quality.reference,
        test=policy.quality.test,
        version=assumed.number,
        alpha=alpha,
        n_max=policy.quality.n_max,
        loss=expected.loss,
        win=expected.win,
        slower=expected.slower,
        slow=expected.slow,
        failing=expected.failing,
        cost_per_request=assumed.prices.teacher if assumed.prices else None,
        sources=assumed.sources,
    )


def _doubts(assumed: Assumed, coverage: float) -> list[str]:
    """What makes this plan hopeless, or less certain than its figures look."""
    policy, expected, found = assumed.policy, assumed.expected, list[str]()
    borne = policy.selective.max_risk if policy.selective else policy.quality.margin
    if expected.loss - expected.win >= borne:
        found.append(
            f"the student is expected to lose {expected.loss - expected.win:.1%}, and {borne:.1%} is borne: it would "
            "be let through by mistake only"
        )
    if policy.selective and coverage < policy.selective.min_coverage:
        found.append(f"a coverage of {coverage:.0%} is below selective.min_coverage: it would never be served")
    if expected.slower >= 0.5:
        found.append("the student is expected to be slower in half of the pairs or more: it would not leave shadow")
    if expected.slow >= 1.0 - policy.latency.quantile:
        found.append("the student is expected to miss its SLO: it would leave no step")
    if expected.failing >= policy.errors.promote_below:
        found.append("the student is expected to fail too often (errors.promote_below): it would not go live")
    return found
