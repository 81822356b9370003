"""The ladder (`student.recipe: auto`): students from cheap to dear, each made only if the one below misses the gate.
Pure.

    linear -> encoder -> lora on the route's base -> each of `student.ladder`, by lora, qlora or full

The first two are left out where the answers aren't few. A rung that can't be made (it doesn't fit into memory, its
export is not its source) is passed over. What a rung's phases came to is stored under `RUNG.PHASE`, so that a killed
cycle goes on at the phase of the rung where it was.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from retrainer.data.told import told as data_told
from retrainer.errors import CycleError
from retrainer.state import CycleState
from router.policy import RoutePolicy
from router.policy_student import CLOSED, StudentPolicy

AUTO = "auto"
FOLDER = "rungs"  # in a cycle's folder
BROKEN = "broken"  # in the place of a phase: why the rung could not be made


class Rung(msgspec.Struct, frozen=True):
    """One student. `name`: empty where a cycle makes one alone."""

    name: str
    recipe: str
    base: str

    def key(self, phase: str) -> str:
        """What a phase's result is stored under."""
        return f"{self.name}.{phase}" if self.name else phase

    def folder(self, cycle: Path) -> Path:
        """Where its files are."""
        return cycle / FOLDER / self.name if self.name else cycle

    def policy(self, policy: RoutePolicy) -> RoutePolicy:
        """The route's, as if it named this student."""
        if policy.student is None:
            raise CycleError("the route has no student")
        student = policy.student.model_copy(update={"recipe": self.recipe, "base": self.base})
        return policy.model_copy(update={"student": student})

    def phases(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Results by the plain names of phases: this rung's, and those that all rungs share."""
        if not self.name:
            return dict(stored)
        own = {k.removeprefix(f"{self.name}."): v for k, v in stored.items() if k.startswith(f"{self.name}.")}
        return {**{k: v for k, v in stored.items() if "." not in k}, **own}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a rung came to, by the student that would be served, or where it never came to that by the trained one.

    `agreement` with its interval. `frontier`: whether no other rung agrees more at the same cost, or as much at a lower
    one (see `costs`). `coverage`: the share of held-out records that it would serve at the route's risk (None where the
    route isn't selective, or the gate refused before). `ms`: of the median answer, one after another and without
    guesses, on all processors of this machine; `usd_per_1000`: requests, by the gate's price of the student; `bytes`:
    of its artefact. `passed`: whether the gate let it through, `why`: where not, `not_checked`: what it could not look
    at.
    """

    rung: str
    agreement: float
    lower: float
    upper: float
    coverage: float | None
    ms: float | None
    usd_per_1000: float | None
    bytes: int | None
    train_seconds: float
    passed: bool
    mode: str
    why: list[str]
    frontier: bool = False
    not_checked: list[str] = []


def rungs(student: StudentPolicy, *, closed: bool) -> list[Rung]:
    """The students to try, in their order."""
    if student.recipe != AUTO:
        return [Rung("", student.recipe, student.base)]
    few = [Rung(name, name, student.base) for name in CLOSED] if closed else []
    writing = dict.fromkeys([("lora", student.base), *((rung.recipe, rung.base) for rung in student.ladder)])
    named = [
        Rung(f"{recipe}-{number}-{_plain(base)}", recipe, base) for number, (recipe, base) in enumerate(writing, 1)
    ]
    return few + named


def frontier(stored: Mapping[str, Any], *, alone: str) -> list[Step]:
    """Quality against cost, of the rungs whose gate has spoken, and that could be made: from a cycle's stored phases.
    `alone`: the recipe, of a cycle that makes one student."""
    names = [key.removesuffix("gate").removesuffix(".") for key in stored if key == "gate" or key.endswith(".gate")]
    names = [name for name in names if f"{name}.{BROKEN}" not in stored]
    steps = [_step(Rung(name, alone, ""), stored) for name in names]
    found = [(step.agreement, cost) for step, cost in zip(steps, costs(steps)[1], strict=True)]
    best = [not any(_better(other, own) for other in found) for own in found]
    return [msgspec.structs.replace(step, frontier=on) for step, on in zip(steps, best, strict=True)]


def costs(steps: Sequence[Step]) -> tuple[str, list[float | None]]:
    """What answers cost, by rung, and in what: in USD where that of every timed rung is known, else in time."""
    if all(step.usd_per_1000 is not None for step in steps if step.ms is not None):
        return "USD for 1,000 answers", [None if step.ms is None else step.usd_per_1000 for step in steps]
    return "ms an answer", [step.ms for step in steps]


def _better(one: tuple[float, float | None], other: tuple[float, float | None]) -> bool:
    """Pareto's, of agreement and cost; a rung that was never timed is no match for any."""
    (agreement, cost), (least, most) = one, other
    if cost is None or most is None:
        return most is None
    return cost <= most and agreement >= least and (cost < most or agreement > least)


def ladder_of(state: CycleState) -> list[Step]:
    """What a cycle's students came to so far."""
    return frontier(state.phases, alone=state.policy["student"]["recipe"])


def broken(state: CycleState) -> dict[str, str]:
    """By rung, why it could not be made."""
    return {k.removesuffix(f".{BROKEN}"): why for k, why in state.phases.items() if k.endswith(f".{BROKEN}")}


def told_broken(state: CycleState) -> list[str]:
    """The same for people, a line each."""
    return [f"{rung}: could not be made: {why}" for rung, why in broken(state).items()]


def told_of(state: CycleState) -> list[str]:
    """What a cycle has found of its data, its answers and its students so far."""
    lines = [f"{name}: {said}" for name, said in data_told(state.phases.get("dataset", {})).items()]
    lines += told(state.phases["closed"], ladder_of(state)) if "closed" in state.phases else []
    return lines + told_broken(state)


def told(closed: Mapping[str, Any], ladder: Sequence[Step]) -> list[str]:
    """Both for people, a line each. `closed`: a cycle's result of that name."""
    if closed["closed"]:
        values = ", ".join(f"{name} ({len(counts)} values)" for name, counts in closed["fields"].items())
        held_out = f", {closed['held_out_covered']} of {closed['held_out']} held out" if closed["held_out"] else ""
        verbatim = f", {closed['verbatim']} to the byte" if closed["verbatim"] < closed["covered"] else ""
        covered = f"{closed['covered']} of {closed['answers']} learnt from{verbatim}"
        lines = [f"answers are few: {values}; cover {covered}{held_out}"]
        lines.append(f"written as {json.dumps(closed['template'], ensure_ascii=False)}")
    else:
        lines = [f"answers are not few: {closed['reason']}"]
    for step in ladder:
        lines += [_line(step), *(f"  not looked at: {what}" for what in step.not_checked)]
    return lines


def _line(step: Step) -> str:
    parts = [f"agreement {step.agreement:.1%} [{step.lower:.1%}, {step.upper:.1%}]"]
    if step.coverage is not None:
        parts.append(f"serves {step.coverage:.1%}")
    if step.ms is not None and step.bytes is not None:
        parts.append(f"{step.ms:.1f} ms an answer, {step.bytes / 1e6:.1f} MB")
    if step.usd_per_1000 is not None:
        parts.append(f"{step.usd_per_1000:.4f} USD for 1,000")
    parts.append(f"trained in {step.train_seconds:.0f} s")
    outcome = f"passed ({step.mode})" if step.passed else f"refused: {'; '.join(step.why)}"
    return f"{step.rung}: {', '.join(parts)}; {outcome}"


def _step(rung: Rung, stored: Mapping[str, Any]) -> Step:
    phases = rung.phases(stored)
    served = phases.get("evaluate_quantized")
    report = served or phases["evaluate_student"]
    verdict = phases.get("gate_quantized") or phases["gate"]
    start = phases.get("assess", {}).get("start")
    latency = served and served.get("latency")
    price = phases.get("compare", {}).get("costs", {}).get("student")
    passed = verdict["gate"] != "refused"
    return Step(
        rung=rung.name or rung.recipe,
        agreement=report["agreement"],
        lower=report["lower"],
        upper=report["upper"],
        coverage=start["coverage"] if start and start["safe"] else 0.0 if start else None,
        ms=latency["p50"] if latency else None,
        usd_per_1000=None if price is None else 1000.0 * price,
        bytes=phases["export"]["bytes"] if "export" in phases else None,
        train_seconds=phases.get("train", {}).get("seconds", 0.0),
        passed=passed,
        mode=verdict["mode"],
        why=[] if passed else verdict["reasons"],
        not_checked=verdict.get("not_checked", []),
    )


def _plain(base: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(base).name)
