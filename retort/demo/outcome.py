"""The demo's figures: from what was sent and decided to a table, and a JSON file."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from exporters.models import write_atomic
from retort.demo.settings import MACHINE_PRICE, PRICE, ROUTE, SWAPPED
from retort.demo.traffic import Sent
from retort.demo.watch import Moment, Watch
from retrainer import Report
from router import Stage, Transition


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm did for the client before any fault was made. Latencies in ms, cost in USD per 1,000 requests."""

    requests: int
    right: float
    p50_ms: float
    p95_ms: float
    tokens_per_second: float
    cost_per_1000: float


# What may take a failing student out: the worker's hard stop, or at a low rate an alarm, whichever is sooner. A failure
# is a late answer, too.
FAILURES = ("hard_stop", "error_alarm", "error_rise_alarm", "slo_alarm", "slo_rise_alarm")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the client saw: in all, `before_faults`, while a twin took the live student's place and gave it back
    (`swapped`), and `while_wrong`, the live student's answers being spoilt."""

    sent: Sequence[Sent]
    before_faults: Sequence[Sent]
    swapped: Sequence[Sent]
    while_wrong: Sequence[Sent]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """All that the demo found. `swap_answers`: by who gave them. `reports`: base, student and quantized on the held-out
    records. `seconds`: by the wall clock, from the first line to the picture; `phases` are its parts, one after
    another."""

    student: str
    bad: str
    promoted: bool
    rejected_in_shadow: bool
    bad_served: int
    twin: str
    swap_answers: dict[str, int]
    rolled_back_wrong: str | None
    rolled_back_failing: str | None
    wrong_served: int
    failed: list[str]
    replayed: bool
    reports: dict[str, Report]
    teacher: Served
    student_served: Served
    decisions: list[Transition]
    moments: list[Moment]
    sent: list[Sent]
    stopped_cleanly: bool = False
    phases: dict[str, float] = {}
    seconds: float = 0.0

    @property
    def swapped(self) -> bool:
        """Whether both versions answered in the hot swap, as often as they should."""
        return min(self.swap_answers.get(version, 0) for version in (self.twin, self.student)) >= SWAPPED

    @property
    def complete(self) -> bool:
        """Promoted, swapped, both bad ends caught in the way they should be, nothing failed, everything reproduced."""
        caught = self.rejected_in_shadow and not self.bad_served
        backs = (
            self.rolled_back_wrong in ("quality_alarm", "quality_drop_alarm") and self.rolled_back_failing in FAILURES
        )
        return (
            self.promoted
            and caught
            and self.swapped
            and backs
            and not self.failed
            and self.replayed
            and self.stopped_cleanly
        )


def build(
    watch: Watch,
    *,
    student: str,
    bad: str,
    twin: str,
    told: Told,
    replayed: bool,
) -> Outcome:
    """Read what was decided, and put it beside what the client saw."""
    decisions = list(watch.registry.transitions(ROUTE))
    backs = [d.cause for d in decisions if d.version == student and d.after is Stage.ROLLED_BACK]
    cycle = watch.cycles.load(student)
    phases = cycle.phases if cycle else {}
    names = {"base": "evaluate_base", "student": "evaluate_student", "quantized": "evaluate_quantized"}
    return Outcome(
        student=student,
        bad=bad,
        promoted=any(d.version == student and d.after is Stage.LIVE and d.cause == "errors_passed" for d in decisions),
        rejected_in_shadow=any(
            d.version == bad and d.before is Stage.SHADOW and d.after is Stage.REJECTED for d in decisions
        ),
        bad_served=sum(s.served_by == bad for s in told.sent),
        twin=twin,
        swap_answers=dict(Counter(s.served_by for s in told.swapped if s.served_by)),
        rolled_back_wrong=backs[0] if backs else None,
        rolled_back_failing=backs[1] if len(backs) > 1 else None,
        wrong_served=sum(s.served_by == student and not s.right for s in told.while_wrong),
        failed=[s.error or "no answer" for s in told.sent if s.served_by is None],
        replayed=replayed,
        reports={name: msgspec.convert(phases[phase], Report) for name, phase in names.items()},
        teacher=_served([s for s in told.before_faults if s.served_by == "teacher"], by_tokens=True),
        student_served=_served([s for s in told.before_faults if s.served_by == student], by_tokens=False),
        decisions=decisions,
        moments=watch.moments,
        sent=list(told.sent),
    )


def _served(sent: Sequence[Sent], *, by_tokens: bool) -> Served:
    """The teacher costs by tokens, the student by the time that it keeps the machine busy."""
    times = sorted(s.milliseconds for s in sent)
    seconds = sum(times) / 1000
    if by_tokens:
        cost = sum(s.prompt_tokens * PRICE["input"] + s.completion_tokens * PRICE["output"] for s in sent) / 1e6
    else:
        cost = seconds / 3600 * MACHINE_PRICE
    return Served(
        requests=len(sent),
        right=sum(s.right for s in sent) / len(sent),
        p50_ms=round(statistics.median(times), 1),
        p95_ms=round(times[int(0.95 * len(times))], 1),
        tokens_per_second=round(sum(s.completion_tokens for s in sent) / seconds, 1),
        cost_per_1000=round(cost / len(sent) * 1000, 5),
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The figures, with the names that a script looks for at the top."""
    reports = outcome.reports
    return {
        "promoted": outcome.promoted,
        "rejected_in_shadow": {"rejected": outcome.rejected_in_shadow, "users_served": outcome.bad_served},
        "hot_swap": {"answers": outcome.swap_answers, "by_both": outcome.swapped},
        "rolled_back": {
            "wrong": outcome.rolled_back_wrong is not None,
            "failing": outcome.rolled_back_failing is not None,
            "causes": [outcome.rolled_back_wrong, outcome.rolled_back_failing],
        },
        "failed_requests": len(outcome.failed),
        "wrong_answers_served_before_rollback": outcome.wrong_served,
        "agreement": {**{name: r.agreement for name, r in reports.items()}, "n": reports["student"].n},
        "agreement_interval": {name: [r.lower, r.upper] for name, r in reports.items()},
        "valid_json": reports["quantized"].valid_json,
        "phases": outcome.phases,
        "seconds": outcome.seconds,
        "replay_reproduces": outcome.replayed,
        "stopped_cleanly": outcome.stopped_cleanly,
        "complete": outcome.complete,
        "requests": len(outcome.sent),
        "served": {
            "teacher": msgspec.to_builtins(outcome.teacher),
            "student": msgspec.to_builtins(outcome.student_served),
        },
        "decisions": [
            {"version": d.version, "before": d.before, "after": d.after, "step": d.step, "cause": d.cause, "at": d.at}
            for d in outcome.decisions
        ],
        "failures": outcome.failed[:20],
    }


def unfinished(error: str, sent: Sequence[Sent], phases: Mapping[str, float]) -> dict[str, Any]:
    """What can be said of a run that did not come to its end."""
    return {
        "promoted": False,
        "complete": False,
        "error": error,
        "requests": len(sent),
        "failed_requests": sum(s.served_by is None for s in sent),
        "phases": dict(phases),
    }


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write the figures, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.format(msgspec.json.encode(data)) + b"\n")


def print_table(console: Console, outcome: Outcome) -> None:
    """What a person wants to know."""
    quality = Table(
        "model", "agreement (95% interval)", "valid JSON", "tokens/s in batches", title="held-out records", box=None
    )
    for name, report in outcome.reports.items():
        interval = f"{report.agreement:.1%} ({report.lower:.1%} - {report.upper:.1%})"
        valid = "-" if report.valid_json is None else f"{report.valid_json:.1%}"
        speed = "-" if report.tokens_per_second is None else f"{report.tokens_per_second:.0f}"
        quality.add_row(name, interval, valid, speed)
    console.print(quality, f"teacher: 100% by definition; {outcome.reports['student'].n} records", "")
    served = Table(
        "served by",
        "requests",
        "right",
        "p50 ms",
        "p95 ms",
        "tokens/s",
        "USD per 1,000",
        title="before any fault",
        box=None,
    )
    for name, row in (("teacher", outcome.teacher), ("student", outcome.student_served)):
        served.add_row(
            name, str(row.requests), f"{row.right:.1%}", f"{row.p50_ms:.0f}", f"{row.p95_ms:.0f}",
            f"{row.tokens_per_second:.0f}", f"{row.cost_per_1000:.4f}",
        )  # fmt: skip
    console.print(served, f"student's cost: {MACHINE_PRICE} USD per machine hour, by the time of its requests", "")
    phases = Table("phase", "seconds", box=None)
    for name, seconds in outcome.phases.items():
        phases.add_row(name, f"{seconds:.1f}")
    phases.add_row("by the wall clock", f"{outcome.seconds:.1f}")
    console.print(phases)
    data = as_json(outcome)
    for name in (
        "promoted", "rejected_in_shadow", "hot_swap", "rolled_back", "wrong_answers_served_before_rollback",
        "failed_requests", "replay_reproduces", "stopped_cleanly", "complete",
    ):  # fmt: skip
        console.print(f"{name}: {data[name]}")
