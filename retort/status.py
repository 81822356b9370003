"""`retort status`: routes, versions and stages, evidence against its boundary, traffic and savings."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from collector import LATEST, Interaction, Stream, open_interactions
from retrainer import Cycles, CycleState, told_of
from retrainer.counting import is_new
from router import Arm, Config, RoutePolicy, open_registry


class Traffic(msgspec.Struct):
    """What a route's latest captured requests were answered by; what was imported is none of them, and only counted.
    `deferred`: those that a student was to answer and was not sure of. Costs in USD: `teacher_cost`, of the teacher's
    answers that clients got; `extra_cost`, of those that were asked for to compare with; `priced`: how many of both had
    a price."""

    requests: int = 0
    imported: int = 0
    by_student: int = 0
    deferred: int = 0
    teacher_cost: float = 0.0
    priced: int = 0
    extra_cost: float = 0.0

    def add(self, record: Interaction) -> None:
        """One more."""
        if record.source:
            self.imported += 1
            return
        answer = record.answers[0]
        self.requests += 1
        self.by_student += answer.arm is Arm.STUDENT
        rescued = any(failed.arm is Arm.STUDENT for failed in record.failed)
        self.deferred += record.arm is Arm.STUDENT and answer.arm is Arm.TEACHER and not rescued
        for one in record.answers:
            if one.arm is Arm.TEACHER and one.cost_usd is not None:
                self.priced += 1
                if one is answer:
                    self.teacher_cost += one.cost_usd
                else:
                    self.extra_cost += one.cost_usd

    @property
    def saved(self) -> float | None:
        """What the teacher would have cost for the requests that a student answered, at the mean price of its answers,
        less what comparing cost. None where no price is known."""
        if not self.priced:
            return None
        return (self.teacher_cost + self.extra_cost) / self.priced * self.by_student - self.extra_cost


class Waiting(msgspec.Struct):
    """What the next training waits for: `new` examples, of which `wanted` start it (more are not counted). `since`: the
    offset that the route's cycles have read to; `whole`: whether all from there on was looked at."""

    wanted: int
    since: int
    whole: bool
    new: int = 0

    def add(self, record: Interaction, offset: int, policy: RoutePolicy) -> None:
        """One more."""
        if offset >= self.since and self.new < self.wanted:
            self.new += is_new(record, offset, policy)

    @property
    def said(self) -> str:
        """In a few words."""
        least = "" if self.whole or self.new >= self.wanted else "at least "
        return f"the next training: {least}{self.new} of {self.wanted} new examples"


def show(config: Config, *, as_json: bool) -> int:
    """Print all routes; returns 0."""
    report = {name: _route(config, name) for name in sorted(config.routes)}
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        console = Console()
        for name, row in report.items():
            _print(console, name, row)
    return 0


def serving(live: str | None, fraction: float) -> str:
    """Who answers, in words. `fraction`: of the eligible requests, that a challenger answers."""
    return live or (
        "none (the teacher answers what the challenger doesn't)" if fraction else "none (the teacher answers)"
    )


def _route(config: Config, name: str) -> dict[str, Any]:
    with closing(open_registry(config.registry)) as registry, open_interactions(config) as interactions:
        policy, cycles = config.routes[name], Cycles(config.state).of(name)
        start = max(interactions.end(name) - LATEST, 0)
        since = max((state.read_to for state in cycles), default=0)
        traffic, waiting = Traffic(), Waiting(policy.retrain.min_new_examples, since, start <= since)
        for offset, record in interactions.of(name, start=start):
            traffic.add(record)
            if policy.student is not None:
                waiting.add(record, offset, policy)
        versions = [
            {"id": v.id, "stage": v.stage.value, "base": v.base, "created_at": v.created_at}
            for v in registry.versions(name)
        ]
        return {
            "status": dict(registry.status(name)),
            "versions": versions,
            "traffic": {**msgspec.to_builtins(traffic), "saved_usd": traffic.saved},
            "student": _learning(config, cycles),
            "next_training": None if policy.student is None else {**msgspec.to_builtins(waiting), "said": waiting.said},
            "quarantined": len(interactions.log.read(Stream.QUARANTINE, 0, LATEST, key=name)),
        }


def _learning(config: Config, states: Sequence[CycleState]) -> list[str]:
    """Of the newest cycle that has read its answers: whether they are few, and what each student came to. And where the
    cycle is that has not ended."""
    cycles = Cycles(config.state)
    lines = [line for state in [s for s in states if "closed" in s.phases][-1:] for line in told_of(state)]
    for state in states:
        if state.outcome is None:
            standing = cycles.standing(state.request.cycle_id)
            lines.append(f"training: {state.request.cycle_id}" + (f", {standing.said}" if standing else ""))
    return lines


def _print(console: Console, name: str, row: Mapping[str, Any]) -> None:
    status, traffic = row["status"], row["traffic"]
    fraction = status.get("fraction", 0.0)
    console.print(f"[bold]{name}[/bold]  live: {serving(status.get('live'), fraction)}", soft_wrap=True)
    if status.get("challenger"):
        console.print(f"  challenger {status['challenger']} at {fraction:.0%} of eligible traffic")
    if status.get("paused"):
        by = status["paused_by"]
        console.print(f"  [yellow]paused[/yellow] by {by.get('who')}: {by.get('why')}", soft_wrap=True)
    if status.get("pinned"):
        by = status["pinned_by"]
        console.print(
            f"  [yellow]pinned[/yellow] to {status['pinned']} by {by.get('who')}: {by.get('why')}", soft_wrap=True
        )
    share = traffic["by_student"] / traffic["requests"] if traffic["requests"] else 0.0
    saved = "no prices known"
    if traffic["saved_usd"] is not None:
        saved = f"{traffic['saved_usd']:.4f} USD saved, with {traffic['extra_cost']:.4f} USD spent on comparing"
    deferred = f", {traffic['deferred'] / traffic['requests']:.1%} deferred" if traffic["deferred"] else ""
    imported = f", {traffic['imported']} imported" if traffic["imported"] else ""
    console.print(
        f"  {traffic['requests']} requests captured, {share:.1%} answered by a student{deferred}, {saved}; "
        f"{row['quarantined']} in quarantine{imported}",
        soft_wrap=True,
    )
    waiting = row["next_training"]
    for line in [*row["student"], *([waiting["said"]] if waiting else [])]:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if not row["versions"]:
        console.print("  no versions yet\n")
        return
    table = Table("version", "stage", "evidence (log e-value of boundary)", box=None, pad_edge=False)
    for version in row["versions"]:
        evidence = status.get("evidence", {}).get(version["id"], {})
        table.add_row(version["id"], version["stage"], _evidence(evidence))
    console.print(table)
    for version_id, evidence in status.get("evidence", {}).items():
        for warning in evidence.get("warnings", ()):
            console.print(f"  [yellow]warning[/yellow]: {version_id}: {warning}", soft_wrap=True)
        if evidence.get("note"):
            console.print(f"  {version_id}: {evidence['note']}", soft_wrap=True)
    console.print()


def _evidence(evidence: Mapping[str, Any]) -> str:
    parts = []
    for test, row in evidence.get("tests", {}).items():
        mark = "passed" if row["passed"] else f"{row['log_e']:.2f}/{row['log_boundary']:.2f}"
        parts.append(f"{test} {mark} (n={row['n']})")
    selective = evidence.get("selective", {})
    if "coverage" in selective:
        parts.append(
            f"selective: {selective['coverage']:.1%} covered at {selective['risk']:.2%} risk "
            f"(certified below {selective['risk_bound']:.2%}), threshold {selective['threshold']}"
        )
    if evidence.get("interval"):
        low, high = evidence["interval"]
        parts.append(f"mean difference {evidence['mean_difference']:+.3f} in [{low:+.3f}, {high:+.3f}]")
    alarms = {name: row for name, row in evidence.get("alarms", {}).items() if not name.endswith("warning")}
    worst = max(alarms.items(), key=lambda item: item[1]["log_e"], default=None)
    if worst:
        parts.append(f"nearest alarm {worst[0]} {worst[1]['log_e']:.2f}/{worst[1]['log_boundary']:.2f}")
    return ", ".join(parts)
