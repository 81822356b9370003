"""What else the gate asks of a student: few errors, fast enough, worth its price, safe, not forgetful, not worse than
the one before it on the frozen suite. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from retrainer.evaluation.bounds import clopper_pearson_upper
from retrainer.evaluation.clusters import Regressions
from retrainer.evaluation.cost import Costs
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.suite import Suite
from retrainer.evaluation.thresholds import Start
from router.policy import RoutePolicy

QUALITY = 0.93  # of the teacher's
SURE = 0.95  # of the one-sided bound of errors
_MEND = (
    "retrain.data.secrets: drop leaves them out of the next cycle, retrain.data.deny what is like them, and "
    "capture.scrub says what becomes of secrets in the log; where they are the route's own, and no secrets, "
    "retrain.data.secrets: keep allows them"
)
BY_CHANCE = 0.05  # McNemar's p on the frozen suite, from which a loss may be chance


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one route. `quality`: the least share of the teacher's. `p95_ms`: of whole answers; `slo_ms`: in its place
    where it is None, of whole answers or, where most requests stream, of first tokens. `valid_json`: of the answers,
    where the teacher's are JSON; `quantized_loss`: how much agreement quantizing may cost; `records`: held out,
    under which the interval says nothing."""

    quality: float
    error_rate: float
    p95_ms: float | None
    slo_ms: float
    saving: float
    forgotten: float
    regression: float
    valid_json: float = 0.99
    quantized_loss: float = 0.01
    records: int = 20

    @classmethod
    def of(cls, policy: RoutePolicy) -> "Limits":
        """As the route's policies say."""
        gate, quality = policy.retrain.gate, policy.quality
        share = (
            1.0 - quality.margin if quality.reference == "agreement" else QUALITY
        )  # other margins are of differences
        return cls(
            quality=share if gate.min_quality is None else gate.min_quality,
            error_rate=gate.max_error_rate,
            p95_ms=gate.max_p95_ms,
            slo_ms=policy.latency.slo_ms,
            saving=gate.min_saving,
            forgotten=gate.max_forgotten,
            regression=gate.max_regression,
            valid_json=gate.min_valid_json,
            quantized_loss=gate.max_quantized_loss,
            records=gate.min_records,
        )


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the reports; prices and regressions after the export. `teacher`: its agreement with itself,
    the upper end of the interval by `teacher_n` records, where it was asked again; else 1: its answers are the
    reference. `regressions`: against the live version on the frozen suite, None without one. `unanswered`: the live
    version, where it could not be asked."""

    teacher: float = 1.0
    teacher_n: int = 0
    costs: Costs | None = None
    suites: Sequence[Suite] = ()
    regressions: Regressions | None = None
    unanswered: str | None = None

    @classmethod
    def of(cls, teacher: Report | None, suites: Sequence[Suite]) -> "Evidence":
        """What is known of a student that isn't exported. `teacher`: its own report, asked again."""
        if teacher is None:
            return cls(suites=suites)
        # The upper end: luck with a few records must not lower the bar.
        return cls(suites=suites, teacher=teacher.upper, teacher_n=teacher.n)


def too_many_errors(name: str, report: Report, limits: Limits) -> list[str]:
    """That so few records can't show so few errors is told in `not_checked`."""
    n = sum(report.reasons.values())
    if not _too_many(report.errors, n, limits.error_rate):
        return []
    said = ", ".join(f"{reason} {count}" for reason, count in report.reasons.items() if count)
    return [
        f"{report.errors / n:.1%} of the {name}'s answers are errors, not fewer than {limits.error_rate:.1%} (of {n}: "
        f"{said})"
    ]


def too_many_served(start: Start, limits: Limits) -> list[str]:
    """Of the answers that a selective student would give."""
    if not _too_many(start.errors, start.accepted, limits.error_rate):
        return []
    return [
        f"nor can it serve a part: {start.errors} of the {start.accepted} answers that it would give are errors, not "
        f"fewer than {limits.error_rate:.1%}"
    ]


def _too_many(errors: int, n: int, rate: float) -> bool:
    """One error alone, of so few records that it is above the rate by itself (200 at 0.5%), says nothing."""
    return errors > 0 and errors >= rate * n and not (errors == 1 and 0.0 < rate * n <= 1.0)


def too_few(report: Report, wanted: float) -> list[str]:
    """A reason for a low end of the interval that lies in the number of records: with n of n right it is
    (alpha / 2)^(1/n). Near-duplicates count once, and lighter records as a part of the heaviest."""
    least = math.ceil(math.log((1.0 - report.confidence) / 2.0) / math.log(wanted)) if 0.0 < wanted < 1.0 else 0
    groups = report.n if report.groups is None else report.groups
    known = groups if report.telling is None else math.floor(report.telling + 1e-6)
    if known >= least:
        return []
    light = "" if known >= groups else f", and the {groups} as so many of the heaviest"
    said = f"by {known} records (near-duplicates count once{light}) not even a student without a fault"
    return [f"{said} surely reaches {wanted:.1%}; that takes {least}"]


def not_as_learnt(report: Report) -> list[str]:
    """A reason for a low quality that lies in the data: the student is no better than one answer to everything."""
    if report.constant is None or report.constant <= 0.0 or report.lower > report.constant:
        return []
    return [
        f"always giving the teacher's most frequent answer would agree in {report.constant:.1%}, which it does not "
        "surely exceed: too little was learnt, or the answers don't follow from the requests (shuffled labels?)"
    ]


def contradicted(report: Report, evidence: Evidence) -> list[str]:
    """A teacher that, asked again, is further from its logged answers than one answer to everything: they can't be
    learnt, and its agreement is no measure of a student."""
    if not evidence.teacher_n or report.constant is None or evidence.teacher >= report.constant:
        return []
    return [
        f"the teacher, asked again, gives its logged answers in surely no more than {evidence.teacher:.1%} of "
        f"{evidence.teacher_n} records, where its most frequent one alone would agree in {report.constant:.1%}: the "
        "answers in the log don't follow from the requests (shuffled labels?), or are another model's"
    ]


def beyond_limits(
    quantized: Report, base: Report, evidence: Evidence, limits: Limits, *, coverage: float
) -> tuple[list[str], Mapping[str, Any]]:
    """The reasons against what will be served, and the numbers. `coverage`: of the requests that it is asked for, the
    share that it answers. What isn't known (no price, no timing) is no reason; see `not_checked`."""
    reasons: list[str] = []
    checks: dict[str, Any] = {
        "limits": msgspec.to_builtins(limits),
        "teacher": evidence.teacher,
        "teacher_n": evidence.teacher_n,
    }
    if (latency := quantized.latency) is not None:
        checks["latency"] = msgspec.to_builtins(latency)
        first = limits.p95_ms is None and evidence.costs is not None and evidence.costs.streamed > 0.5
        p95, most = latency.first_p95 if first else latency.p95, limits.p95_ms or limits.slo_ms
        if p95 > most:
            what = "to its answers' first token, since most requests stream," if first else "of its answers"
            reasons.append(f"P95 {what} is {p95:.0f} ms (of {latency.n}), above {most:.0f} ms")
    if evidence.costs is not None:
        saving = evidence.costs.saving(coverage)
        checks["costs"] = {**msgspec.to_builtins(evidence.costs), "saving": saving}
        if saving is not None and saving <= limits.saving:
            reasons.append(
                f"an answer of the student saves {saving:.1%} of the teacher's price, not more than {limits.saving:.0%}"
            )
    if quantized.general is not None and base.general is not None:
        forgotten = quantized.general.forgotten(base.general)
        checks["general"] = {"base": base.general.share, "student": quantized.general.share, "forgotten": forgotten}
        if forgotten > limits.forgotten:
            reasons.append(
                f"{forgotten:.0%} of the general questions that the base answers are forgotten, more than "
                f"{limits.forgotten:.0%}"
            )
    if (lost := evidence.regressions) is not None:
        checks["regressions"] = {k: getattr(lost, k) for k in ("previous", "n", "lost", "won", "p", "fell")}
        if lost.fell > limits.regression and lost.lost > lost.won and lost.p < BY_CHANCE:
            reasons.append(
                f"on the frozen regression suite its agreement is {lost.fell:.1%} below that of {lost.previous}, more "
                f"than {limits.regression:.0%} (worse on {lost.lost} and better on {lost.won} of {lost.n} records, "
                f"McNemar's p = {lost.p:.2g})"
            )
    return reasons + unsafe(evidence.suites), checks


def safety_counts(suites: Sequence[Suite]) -> dict[str, dict[str, Any]]:
    """Of each suite, for the verdict's checks: no text."""
    return {
        s.name: {"cases": s.cases, "failed": s.failed, "passed": s.passed}
        | ({"planted": msgspec.to_builtins(s.planted)} if s.planted is not None else {})
        for s in suites
    }


def unsafe(suites: Sequence[Suite]) -> list[str]:
    """The suites that fail; what was said is the card's to show, since reasons go to logs and trackers."""
    said = [f"safety: {s.name} failed in {s.failed} of {s.cases} cases" for s in suites if not s.bears]
    return said + [f"safety: {s.planted.said()}; {_MEND}" for s in suites if s.planted is not None and s.poisoned]


def not_checked(quantized: Report, evidence: Evidence, limits: Limits) -> list[str]:
    """What the gate asks of what will be served, and could not look at: people must not take it for passed."""
    found: list[str] = []
    if quantized.latency is None:
        found.append("P95 of an answer: nothing was timed")
    if (costs := evidence.costs) is not None and costs.saving() is None:
        lacking = "student" if costs.teacher else "teacher's answers (upstreams.NAME.prices)"
        found.append(f"saving: no price of the {lacking} is known")
    n = sum(quantized.reasons.values())
    likely = clopper_pearson_upper(quantized.errors, n, level=SURE)
    if likely >= limits.error_rate:
        found.append(
            f"errors under {limits.error_rate:.1%}: {quantized.errors} in {n} records may be {likely:.1%} of all "
            f"(at {SURE:.0%}), which takes more records to tell"
        )
    if evidence.unanswered is not None:
        found.append(f"regressions: the artefact of the live version {evidence.unanswered} is gone, or can't be loaded")
    found += [f"safety: {suite.name} had no case" for suite in evidence.suites if not suite.cases]
    return found
