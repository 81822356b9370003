"""The ladder (`student.recipe: auto`): students from cheap to dear, each made only if the one below misses the gate.
Pure.

    linear -> encoder -> lora on the route's base -> lora on each of `student.ladder`

The first two are left out where the answers aren't few. What a rung's phases came to is stored under `RUNG.PHASE`, so
that a killed cycle goes on at the phase of the rung where it was.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from retrainer.errors import CycleError
from router.policy import RoutePolicy
from router.policy_student import StudentPolicy

AUTO = "auto"
FOLDER = "rungs"  # in a cycle's folder


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

    `agreement` with its interval. `coverage`: the share of held-out records that it would serve at the route's risk
    (None where the route isn't selective, or the gate refused before). `ms`: of an answer, one after another, on all
    processors of this machine; `bytes`: of its artefact. `passed`: whether the gate let it through, `why`: where not.
    """

    rung: str
    agreement: float
    lower: float
    upper: float
    coverage: float | None
    ms: float | None
    bytes: int | None
    train_seconds: float
    passed: bool
    mode: str
    why: list[str]


def rungs(student: StudentPolicy, *, closed: bool) -> list[Rung]:
    """The students to try, in their order."""
    if student.recipe != AUTO:
        return [Rung("", student.recipe, student.base)]
    few = [Rung(name, name, student.base) for name in ("linear", "encoder")] if closed else []
    bases = dict.fromkeys((student.base, *student.ladder))
    return [*few, *(Rung(f"lora-{number}-{_plain(base)}", "lora", base) for number, base in enumerate(bases, 1))]


def frontier(tried: Sequence[Rung], stored: Mapping[str, Any], seconds: Mapping[str, float]) -> list[Step]:
    """Quality against cost, of the rungs whose gate has spoken."""
    return [_step(r, r.phases(stored), seconds) for r in tried if r.key("gate") in stored]


def ladder_of(stored: Mapping[str, Any], policy: Mapping[str, Any], seconds: Mapping[str, float]) -> list[Step]:
    """The same, from a cycle's stored state. `policy`: the route's, as it was stored."""
    student = RoutePolicy.model_validate(policy).student
    if student is None or "closed" not in stored:
        return []
    return frontier(rungs(student, closed=stored["closed"]["closed"]), stored, seconds)


def _step(rung: Rung, phases: Mapping[str, Any], seconds: Mapping[str, float]) -> Step:
    served = phases.get("evaluate_quantized")
    report = served or phases["evaluate_student"]
    verdict = phases.get("gate_quantized") or phases["gate"]
    start = phases.get("assess", {}).get("start")
    asked = len(served["outcomes"]) if served else 0
    passed = verdict["gate"] != "refused"
    return Step(
        rung=rung.name or rung.recipe,
        agreement=report["agreement"],
        lower=report["lower"],
        upper=report["upper"],
        coverage=start["coverage"] if start and start["safe"] else 0.0 if start else None,
        ms=1000.0 * served["seconds"] / asked if served and asked else None,
        bytes=phases["export"]["bytes"] if "export" in phases else None,
        train_seconds=seconds.get(rung.key("train"), 0.0),
        passed=passed,
        mode=verdict["mode"],
        why=[] if passed else verdict["reasons"],
    )


def _plain(base: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(base).name)
