"""From options, measurements and the policy to what a plan assumes; bad and missing input is told here."""

import msgspec

from retort.errors import StartError
from retort.plan_inputs import Known, Measured, known, measure
from retort.plan_money import DAY, Prices
from retort.plan_options import PlanOptions
from router import Config, RoutePolicy
from router.planning import Expected
from router.planning_ramp import Traffic

AGREEMENT = 0.97  # of a student worth a trial, where nothing is known yet
DISCORDANCE = 0.1  # free text: about one answer in ten is better or worse
COVERAGE = (0.3, 0.6, 0.9)
AROUND = (0.5, 0.7, 1.0, 1.5, 2.0)  # times the route's margin


class Assumed(msgspec.Struct, frozen=True, kw_only=True):
    """All that the simulation takes. `margins`: of the scenarios, the policy's own among them unless others were
    given; `coverage`: (1.0,) without selective serving. `sources`: where a figure came from, in words."""

    policy: RoutePolicy
    per_day: float
    eligible: float
    traffic: Traffic
    expected: Expected
    number: int
    margins: tuple[float, ...]
    coverage: tuple[float, ...]
    prices: Prices | None
    sources: dict[str, str]
    notes: tuple[str, ...]


def assume(config: Config, route: str, options: PlanOptions) -> Assumed:
    """Raises StartError where the route or the traffic isn't known, and for options that don't fit the policy."""
    policy = config.routes.get(route)
    students = sorted(name for name, one in config.routes.items() if one.student)
    if policy is None or policy.student is None:
        raise StartError(f"no route {route!r} with a student; the configuration has: {', '.join(students) or 'none'}")
    _fit(policy, options)
    measured, found = measure(config, route), known(config, route)
    sources, notes = dict[str, str](), list[str]()
    per_day = _per_day(route, policy, measured, options, sources, notes)
    eligible = measured.eligible / measured.requests if measured.requests else 1.0
    sources["eligible_share"] = "measured" if measured.requests else "assumed: all"
    if eligible == 0.0:
        raise StartError(
            f"none of the {measured.requests} captured requests of {route!r} was eligible for a student; see "
            "student.max_prompt_bytes, and which requests only a teacher can answer"
        )
    if found.live:
        notes.append(
            f"{found.live} is live: a challenger gets its pairs from audits and the holdback, and what it saves "
            "here is against the teacher, not against the live student"
        )
    expected = _expected(policy, found, options, sources)
    return Assumed(
        policy=policy,
        per_day=per_day,
        eligible=eligible,
        traffic=Traffic(
            per_second=per_day * eligible / DAY,
            live=found.live is not None,
            labelled=1.0 if options.labelled is None else options.labelled,
        ),
        expected=expected,
        number=found.number,
        margins=_margins(policy, options, notes),
        coverage=(options.coverage or COVERAGE) if policy.selective else (1.0,),
        prices=_prices(measured, options, sources, notes, judged=policy.quality.reference == "judge"),
        sources=sources,
        notes=tuple(notes),
    )


def _fit(policy: RoutePolicy, options: PlanOptions) -> None:
    """Options that this policy has no use for would be passed over in silence."""
    reference, agreement = policy.quality.reference, policy.quality.reference == "agreement"
    other = options.discordance is not None or options.difference is not None
    wrong = None
    if policy.selective is None and (options.coverage or options.risk is not None):
        wrong = "--coverage and --risk are of selective serving, and the route has no selective:; leave them out"
    elif policy.selective and (options.agreement is not None or other):
        wrong = "the route serves selectively: say --risk, the mean loss of what the student is sure of"
    elif agreement and other:
        wrong = "--discordance and --difference are of other references; with reference: agreement say --agreement"
    elif not agreement and options.agreement is not None:
        wrong = f"--agreement is of reference: agreement; with reference: {reference} say --discordance, --difference"
    elif reference == "truth" and not options.labelled:
        wrong = "reference: truth needs --labelled, the share of requests whose right answer arrives, for example 0.2"
    elif reference != "truth" and options.labelled is not None:
        wrong = "--labelled is of reference: truth; leave it out"
    elif reference != "judge" and options.judge_cost is not None:
        wrong = "--judge-cost is of reference: judge; leave it out"
    if wrong:
        raise StartError(wrong)


def _per_day(
    route: str,
    policy: RoutePolicy,
    measured: Measured,
    options: PlanOptions,
    sources: dict[str, str],
    notes: list[str],
) -> float:
    if options.per_day is not None:
        sources["requests_per_day"] = "given"
        return options.per_day
    if measured.per_second is None or not policy.capture.rate:
        raise StartError(
            f"the traffic of {route!r} is not known: the log holds {measured.requests} of its requests; say --per-day "
            "N, for example --per-day 10000"
        )
    sources["requests_per_day"] = f"measured on {measured.requests} captured requests in {_span(measured.seconds)}"
    if measured.seconds < DAY:
        notes.append("traffic was measured on less than a day, which has no night in it; --per-day says it better")
    return measured.per_second * DAY / policy.capture.rate


def _span(seconds: float) -> str:
    if seconds < 3600.0:
        return f"{seconds / 60.0:.0f} minutes"
    return f"{seconds / 3600.0:.0f} hours" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


def _expected(policy: RoutePolicy, found: Known, options: PlanOptions, sources: dict[str, str]) -> Expected:
    slower = policy.latency.good_rate if options.slower is None else options.slower
    slow = (1.0 - policy.latency.quantile) / 5.0 if options.slow is None else options.slow
    sources["slower"] = "latency.good_rate" if options.slower is None else "given"
    sources["slow"] = "assumed: a fifth of what is borne" if options.slow is None else "given"
    loss, win = _quality(policy, found, options, sources)
    return Expected(loss=loss, win=win, slower=slower, slow=slow, failing=options.failing)


def _quality(policy: RoutePolicy, found: Known, options: PlanOptions, sources: dict[str, str]) -> tuple[float, float]:
    """The shares of pairs that the student loses and wins."""
    if policy.selective:
        sources["loss"] = "assumed: a third of max_risk" if options.risk is None else "given"
        return (policy.selective.max_risk / 3.0 if options.risk is None else options.risk), 0.0
    if policy.quality.reference == "agreement":
        if options.agreement is not None:
            sources["loss"] = "given"
            return 1.0 - options.agreement, 0.0
        if found.agreement is not None:
            sources["loss"] = f"measured offline on {found.version}"
            return 1.0 - found.agreement, 0.0
        sources["loss"] = f"assumed: an agreement of {AGREEMENT:.0%}"
        return 1.0 - AGREEMENT, 0.0
    psi = options.discordance
    if psi is None:
        psi = policy.quality.discordance or DISCORDANCE
    mean = options.difference or 0.0
    if abs(mean) > psi:
        raise StartError(
            f"--difference {mean:g} is more than the share of pairs that differ ({psi:g}); say a larger --discordance"
        )
    sources["loss"] = f"{'assumed' if options.discordance is None else 'given'}: {psi:.1%} of pairs differ"
    return (psi - mean) / 2.0, (psi + mean) / 2.0


def _margins(policy: RoutePolicy, options: PlanOptions, notes: list[str]) -> tuple[float, ...]:
    if policy.selective:
        wanted = options.margins or (policy.selective.max_risk,)
        return tuple(m for m in wanted if m < 1.0)
    quality = policy.quality
    wanted = options.margins or tuple(round(quality.margin * times, 6) for times in AROUND)
    most = 1.0
    least = 0.0
    if quality.test == "sprt" and quality.reference == "agreement":
        least = 1.0 - (quality.good_rate or 1.0)
    elif quality.test == "sprt":
        most = quality.discordance or 1.0
    fitting = tuple(m for m in wanted if least < m < most)
    if left := [f"{m:g}" for m in wanted if m not in fitting]:
        said = f"margins must be between {least:g} and {most:g} here; left out: {', '.join(left)}"
        if options.margins:
            raise StartError(said.partition(";")[0] + f"; got {', '.join(left)}")
        notes.append(said)
    return fitting


def _prices(
    measured: Measured, options: PlanOptions, sources: dict[str, str], notes: list[str], *, judged: bool
) -> Prices | None:
    teacher = measured.cost if options.cost_per_request is None else options.cost_per_request
    if teacher is None:
        notes.append("no price is known, so no savings: set upstreams.NAME.prices, or say --cost-per-request")
        return None
    sources["cost_per_request"] = "mean of the log's teacher answers" if options.cost_per_request is None else "given"
    if judged and options.judge_cost is None:
        notes.append("a judge's call is counted at the teacher's price; --judge-cost says another")
    return Prices(
        teacher=teacher,
        judge=teacher if options.judge_cost is None else options.judge_cost,
        student=options.student_cost,
    )
