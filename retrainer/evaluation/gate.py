"""May a trained student become a candidate? Pure: reports in, a verdict with its reasons out. It can say no.

The gate only keeps hopeless students out of the rollout; the proof is the sequential test on live traffic.

Where the route serves selectively, a student that fails as a whole (its agreement, its share of JSON, what quantizing
cost it) passes if it is sure, and right, on enough of the held-out records: those faults are in the answers, so in the
risk of the ones that it would serve. A leaked placeholder, too few records, a student no better than its base, and what
`limits` asks of what will be served (errors, time, price, safety) are not, and refuse it in either mode.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.limits import (
    Evidence,
    Limits,
    beyond_limits,
    contradicted,
    not_as_learnt,
    not_checked,
    safety_counts,
    too_few,
    too_many_errors,
    too_many_served,
    unsafe,
)
from retrainer.evaluation.thresholds import LEVEL, Start
from router.policy_quality import SelectivePolicy


class Override(msgspec.Struct, frozen=True):
    """A person takes a failing candidate on; both fields go to the audit trail."""

    who: str
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`gate`: passed | refused | overridden. `mode`: whole | selective. `reasons`: why it would refuse, empty when it
    passed as a whole; of a selective student, why not as a whole. `checks`: each number against its bound.
    `not_checked`: what the gate asks and could not look at. `who`, `why`: of an override."""

    gate: str
    reasons: list[str]
    checks: dict[str, Any]
    mode: str = "whole"
    not_checked: list[str] = []
    who: str | None = None
    why: str | None = None

    @property
    def lets_through(self) -> bool:
        """Whether the cycle goes on to register the candidate."""
        return self.gate != "refused"


def judge(
    *,
    base: Report,
    student: Report,
    quantized: Report | None,
    limits: Limits,
    evidence: Evidence | None = None,
    selective: SelectivePolicy | None = None,
    start: Start | None = None,
    override: Override | None = None,
) -> Verdict:
    """The verdict on a student, before its export (`quantized` None) and after.

    The lower end of each interval must not lie below `limits.quality` of the teacher's. `start` (what the threshold at
    which a `selective` route's test begins would serve) is known after the export. Before that, a student that fails as
    a whole goes on as far as it can still pass selectively.
    """
    evidence = evidence or Evidence()
    wanted = limits.quality * evidence.teacher
    bar = f"{wanted:.1%}"
    if evidence.teacher_n:
        known = f"by {evidence.teacher_n} records may be {evidence.teacher:.1%}"
        bar += f" ({limits.quality:.1%} of the teacher's agreement with itself, which {known})"
    checks: dict[str, Any] = {
        "wanted": wanted, "valid_json_bound": limits.valid_json, "quantized_loss_bound": limits.quantized_loss
    }  # fmt: skip
    unknown: list[str] = []
    whole: list[str] = []  # what selective serving can mend
    always: list[str] = []
    for name, report in {"student": student, "quantized student": quantized}.items():
        if report is not None:
            whole += _as_a_whole(name, report, wanted, bar, limits)
            always += _in_any_mode(name, report, limits)
            checks[name.split()[0]] = _numbers(report)
    if student.agreement <= base.agreement:
        always.append(f"the student agrees with the teacher no more than the base: {_vs(student, base)}")
    always += contradicted(student, evidence)
    checks["base"] = _numbers(base)
    if quantized is not None:
        loss = student.agreement - quantized.agreement
        checks["quantized_loss"] = loss
        if loss > limits.quantized_loss + 1e-9:  # exactly so much still passes
            whole.append(f"quantizing costs {loss:.1%} agreement, more than {limits.quantized_loss:.1%}")
    if start is not None:
        checks["selective"] = msgspec.to_builtins(start)
    mode = "whole"
    if whole and selective is not None:
        mode = "selective"
        always += _selectively(student if quantized is None else quantized, selective, start, known=bool(quantized))
        always += too_many_served(start, limits) if start is not None else []
    if quantized is not None:
        coverage = start.coverage if mode == "selective" and start is not None else 1.0
        beyond, numbers = beyond_limits(quantized, base, evidence, limits, coverage=coverage)
        always += beyond
        checks |= numbers
        unknown = not_checked(quantized, evidence, limits)
    else:
        always += unsafe(evidence.suites)
    checks["safety"] = safety_counts(evidence.suites)
    reasons = whole + always
    made = Verdict(gate="refused", reasons=reasons, checks=checks, mode=mode, not_checked=unknown)
    if not always and (not whole or selective is not None):
        return msgspec.structs.replace(made, gate="passed")
    if override is not None:
        return msgspec.structs.replace(made, gate="overridden", who=override.who, why=override.why)
    return made


def _as_a_whole(name: str, report: Report, wanted: float, bar: str, limits: Limits) -> list[str]:
    reasons = []
    if report.lower < wanted:
        reasons.append(
            f"the {name}'s agreement is {report.agreement:.1%} (interval from {report.lower:.1%}), "
            f"not surely at least {bar}"
        )
        reasons += too_few(report, wanted)
    # A bar that the teacher's own agreement has lowered is one that a single answer to everything might pass.
    if report.lower < wanted or wanted < limits.quality:
        reasons += not_as_learnt(report)
    reasons += too_many_errors(name, report, limits)
    if report.valid_json is not None and report.valid_json < limits.valid_json:
        share, least = f"{report.valid_json:.1%}", f"{limits.valid_json:.1%}"
        reasons.append(f"only {share} of the {name}'s answers are JSON, fewer than {least}")
    return reasons


def _in_any_mode(name: str, report: Report, limits: Limits) -> list[str]:
    reasons = []
    if report.n < limits.records:
        reasons.append(f"the {name} was judged by {report.n} records, fewer than {limits.records}")
    if report.leaked:
        reasons.append(f"{report.leaked} of the {name}'s answers hold a scrubber's placeholder such as <PERSON_1>")
    return reasons


def _selectively(report: Report, selective: SelectivePolicy, start: Start | None, *, known: bool) -> list[str]:
    """Why a student can't serve a part either. Before its confidence is `known`: it must be right on more than that
    part takes, coverage (1 - risk), or no threshold can find it."""
    wanted, risk = selective.min_coverage, selective.max_risk
    if not known:
        needed = wanted * (1 - risk)
        if report.upper >= needed:
            return []
        return [
            f"nor can it serve a part: {wanted:.1%} of the requests at a risk of {risk:.1%} takes an agreement of at "
            f"least {needed:.1%}, and its own is surely below {report.upper:.1%}"
        ]
    if start is None or not start.safe:
        return [f"nor can it serve a part: no confidence above which its risk is surely at most {risk:.1%} was found"]
    if start.coverage_lower < wanted:
        return [
            f"nor can it serve a part: at a risk of {risk:.1%} that is {start.coverage:.1%} of the requests (surely "
            f"{start.coverage_lower:.1%}, at {LEVEL:.0%}), fewer than {wanted:.1%}"
        ]
    return []


def _numbers(report: Report) -> Mapping[str, Any]:
    return {
        "n": report.n,
        "agreement": report.agreement,
        "lower": report.lower,
        "valid_json": report.valid_json,
        "leaked": report.leaked,
        "errors": report.errors,
    }


def _vs(student: Report, base: Report) -> str:
    return f"{student.agreement:.1%} against {base.agreement:.1%}"
