"""May a trained student become a candidate? Pure: reports in, a verdict with its reasons out. It can say no.

The gate only keeps hopeless students out of the rollout; the proof is the sequential test on live traffic.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from retrainer.evaluate import Report

VALID_JSON = 0.99  # of the answers, where the teacher's are JSON
QUANTIZED_LOSS = 0.01  # how much agreement quantizing may cost
LEAST_JUDGED = 20  # held-out records, under which the interval says nothing


class Override(msgspec.Struct, frozen=True):
    """A person takes a failing candidate on; both fields go to the audit trail."""

    who: str
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`gate`: passed | refused | overridden. `reasons`: why it would refuse, empty when it passed. `checks`: each
    number against its bound. `who`, `why`: of an override."""

    gate: str
    reasons: list[str]
    checks: dict[str, Any]
    who: str | None = None
    why: str | None = None

    @property
    def lets_through(self) -> bool:
        """Whether the cycle goes on to register the candidate."""
        return self.gate != "refused"


def judge(
    *, base: Report, student: Report, quantized: Report | None, margin: float, override: Override | None = None
) -> Verdict:
    """The verdict on a student, before its export (`quantized` None) and after.

    `margin`: of the route's quality policy; the lower end of each interval must not lie below 1 - margin.
    """
    reasons: list[str] = []
    checks: dict[str, Any] = {"margin": margin, "valid_json_bound": VALID_JSON, "quantized_loss_bound": QUANTIZED_LOSS}
    for name, report in {"student": student, "quantized student": quantized}.items():
        if report is not None:
            reasons += _alone(name, report, margin)
            checks[name.split()[0]] = _numbers(report)
    if student.agreement <= base.agreement:
        reasons.append(f"the student agrees with the teacher no more than the base: {_vs(student, base)}")
    checks["base"] = _numbers(base)
    if quantized is not None:
        loss = student.agreement - quantized.agreement
        checks["quantized_loss"] = loss
        if loss > QUANTIZED_LOSS + 1e-9:  # exactly one point still passes
            reasons.append(f"quantizing costs {loss:.1%} agreement, more than {QUANTIZED_LOSS:.0%}")
    if not reasons:
        return Verdict(gate="passed", reasons=[], checks=checks)
    if override is not None:
        return Verdict(gate="overridden", reasons=reasons, checks=checks, who=override.who, why=override.why)
    return Verdict(gate="refused", reasons=reasons, checks=checks)


def _alone(name: str, report: Report, margin: float) -> list[str]:
    reasons = []
    if report.n < LEAST_JUDGED:
        reasons.append(f"the {name} was judged by {report.n} records, fewer than {LEAST_JUDGED}")
    if report.lower < 1 - margin:
        reasons.append(
            f"the {name}'s agreement is {report.agreement:.1%} (interval from {report.lower:.1%}), "
            f"not surely at least {1 - margin:.1%}"
        )
    if report.valid_json is not None and report.valid_json < VALID_JSON:
        reasons.append(f"only {report.valid_json:.1%} of the {name}'s answers are JSON, fewer than {VALID_JSON:.0%}")
    if report.leaked:
        reasons.append(f"{report.leaked} of the {name}'s answers hold a scrubber's placeholder such as <PERSON_1>")
    return reasons


def _numbers(report: Report) -> Mapping[str, Any]:
    return {
        "n": report.n,
        "agreement": report.agreement,
        "lower": report.lower,
        "valid_json": report.valid_json,
        "leaked": report.leaked,
    }


def _vs(student: Report, base: Report) -> str:
    return f"{student.agreement:.1%} against {base.agreement:.1%}"
