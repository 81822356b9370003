"""`retort evaluate ROUTE --student BASE`: what a student would reach and save, before any traffic is routed.

It is a training cycle that ends before it publishes anything; `untrained`, the base alone answers the held-out records.
Either way nothing is registered and nothing is routed, and what it worked on is removed at the end.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from collector import Interactions, open_interactions
from exporters.models import ArtefactError
from retort.errors import StartError
from retort.evaluate_money import Saving, Terms, saving
from retort.studies import at_work, begun, ended, study_config
from retort.training_bar import TrainingBar
from retrainer import Cycles, CycleState, NotEnoughExamples, Request, RetrainerError, told_of
from retrainer.cycle import run_request
from retrainer.errors import PhaseElsewhere
from retrainer.ladder import broken
from retrainer.phases import Phases
from retrainer.progress import Progress
from retrainer.recipes import RECIPES, Job
from retrainer.scoring import scorer
from router import Config, Events, open_registry
from router.policy_student import CLOSED

AFTER_THE_GATE = ("card", "publish", "register")


class EvaluateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`examples`: the newest so many at most; `max_steps`: ends the training early; both None: as the route's retrain
    says. `max_risk`: judged as a student that serves what it is sure of; None: as the route serves. `per_day`:
    requests, `cost_per_request`: USD of the teacher; None: as in the log. `who`: for the audit log."""

    student: str
    recipe: str | None = None
    examples: int | None = None
    untrained: bool = False
    max_risk: float | None = None
    max_steps: int | None = None
    per_day: float | None = None
    cost_per_request: float | None = None
    who: str = "retort"


class Scored(msgspec.Struct, frozen=True):
    """Agreement with the teacher on the held-out records, with its 95% interval."""

    n: int
    agreement: float
    lower: float
    upper: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict. `scores`: base, student, quantized, as far as it came. `told`: what was found of the data and
    the answers, and of each student of a ladder. `gate`: passed | refused, None untrained.
    `mode`: whole | selective. `coverage`: share of the requests that the student could serve; None: not known."""

    route: str
    base: str
    recipe: str
    examples: dict[str, int]
    scores: dict[str, Scored]
    told: list[str]
    gate: str | None
    mode: str | None
    reasons: list[str]
    not_checked: list[str]
    coverage: float | None
    risk: float | None
    saving: Saving
    seconds: float


def evaluate(config: Config, route: str, options: EvaluateOptions, *, as_json: bool = False) -> int:
    """Print the verdict; returns 0, or 1 where the gate would refuse the student. Raises StartError."""
    student: dict[str, Any] = {"base": options.student}
    if options.recipe is not None:
        student["recipe"] = options.recipe
    changes: dict[str, dict[str, Any]] = {"student": student}
    if options.max_risk is not None:
        changes["selective"] = {"max_risk": options.max_risk}
    if options.examples is not None:
        changes["retrain"] = {"max_examples": options.examples}
    study = study_config(config, route, name="evaluate", changes=changes, steps=options.max_steps)
    began = time.monotonic()
    with at_work(config, study, route) as unwanted:
        try:
            with TrainingBar(unwanted) as bar, open_interactions(config) as interactions:
                work = _ask_the_base if options.untrained else _train
                phases = work(study, route, options, interactions, bar)
        except NotEnoughExamples as error:
            raise StartError(
                f"{error}; `retort bootstrap` and `retort import` bring data to a route without traffic"
            ) from error
        except (RetrainerError, ArtefactError) as error:
            if not error.retryable:  # the same command would end so again
                shutil.rmtree(study.state)
            raise StartError(str(error)) from error
        shutil.rmtree(study.state)
    found = _found(study, route, options, phases, saving_of=config, seconds=time.monotonic() - began)
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if as_json else "\n".join(lines(found)))
    return int(found.gate == "refused")


def _train(
    study: Config, route: str, options: EvaluateOptions, interactions: Interactions, progress: Progress
) -> Mapping[str, Any]:
    request = begun(study, route, reason="evaluate", who=options.who, max_steps=options.max_steps).request
    try:
        with closing(open_registry(study.registry)) as registry:
            run_request(
                study,
                request,
                registry=registry,
                interactions=interactions,
                events=Events(),
                progress=progress,
                mine=lambda phase: phase.rpartition(".")[2] not in AFTER_THE_GATE,
            )
    except PhaseElsewhere:
        pass  # it has passed the gate
    except (RetrainerError, ArtefactError) as error:
        state = Cycles(study.state).load(request.cycle_id)
        if state is not None and not error.retryable:
            ended(study, state, "failed", error=str(error))
        raise
    state = Cycles(study.state).load(request.cycle_id)
    if state is None:
        raise StartError("the evaluation's state is gone; repeat the command")
    ended(study, state, "passed")
    return _known(state)


def _known(state: CycleState) -> Mapping[str, Any]:
    """By phase; `rung`: which student of a ladder that is; `told`: of answers and ladder, for people."""
    unmade = broken(state)
    rungs = [rung for name in state.phases if (rung := name.rpartition(".")[0]) and rung not in unmade]
    own = f"{rungs[-1]}." if rungs else ""  # of several students the last one that could be made is judged
    known = {
        name.removeprefix(own): result for name, result in state.phases.items() if "." not in name.removeprefix(own)
    }
    return {**known, "rung": rungs[-1] if rungs else None, "told": told_of(state)}


def _ask_the_base(
    study: Config, route: str, options: EvaluateOptions, interactions: Interactions, progress: Progress
) -> Mapping[str, Any]:
    folder = Path(study.state) / "evaluation"
    shutil.rmtree(folder, ignore_errors=True)  # the log has grown since
    folder.mkdir()
    policy = study.routes[route]
    if policy.student is None or policy.student.recipe not in RECIPES:
        raise StartError(f"with --untrained one recipe is asked: say --recipe {'|'.join(RECIPES)}")
    work = Phases(study, Request(cycle_id="evaluation", route=route), Job(study.state, policy, folder, progress))
    work.prepare()
    dataset = work.dataset(interactions)
    report = work.evaluate_base(scorer(policy.quality.score, study.state))
    return {"dataset": dataset, "evaluate_base": msgspec.to_builtins(report)}


def _found(
    study: Config,
    route: str,
    options: EvaluateOptions,
    phases: Mapping[str, Any],
    *,
    saving_of: Config,
    seconds: float,
) -> Found:
    student = study.routes[route].student
    gate = phases.get("gate_quantized") or phases.get("gate")
    coverage = risk = None
    if gate is not None:
        start = (phases.get("assess") or {}).get("start") or {}
        coverage, risk = 0.0, None
        if gate["gate"] == "passed" and gate["mode"] == "whole":
            coverage = 1.0
        elif gate["gate"] == "passed":
            coverage, risk = start["coverage"], start["risk"]
    terms = Terms(
        coverage=coverage,
        student=(phases.get("compare") or {}).get("costs", {}).get("student"),
        per_day=options.per_day,
        cost=options.cost_per_request,
    )
    return Found(
        route=route,
        base=options.student,
        recipe=phases.get("rung") or (student.recipe if student else ""),
        examples=dict(phases["dataset"]["counts"]),
        scores={
            name: msgspec.convert({k: phases[phase][k] for k in Scored.__struct_fields__}, Scored)
            for name, phase in _REPORTS.items()
            if phase in phases
        },
        told=phases.get("told", []),
        gate=gate and gate["gate"],
        mode=gate and gate["mode"],
        reasons=gate["reasons"] if gate else [],
        not_checked=gate.get("not_checked", []) if gate else [],
        coverage=coverage,
        risk=risk,
        saving=saving(saving_of, study.routes[route], route, terms),
        seconds=seconds,
    )


_REPORTS = {"base": "evaluate_base", "student": "evaluate_student", "quantized": "evaluate_quantized"}
_NAMES = {"base": "the base, untrained", "student": "the student", "quantized": "as it would be served"}


def lines(found: Found) -> list[str]:
    """For people."""
    held_out = sum(count for part, count in found.examples.items() if part != "train")
    closed = found.recipe in CLOSED
    names = {**_NAMES, "base": "the commonest answer"} if closed else _NAMES
    made = found.recipe if closed else f"{found.base}, {found.recipe}"
    said = [f"{found.route}: {made}; {found.examples['train']} examples to learn from, {held_out} held out"]
    said += [
        f"  {names[name]:22s} {s.agreement:6.1%} agreement with the teacher (95%: {s.lower:.1%} to {s.upper:.1%}, "
        f"n={s.n})"
        for name, s in found.scores.items()
    ]
    if found.gate is None:
        said.append("  nothing was trained: a student starts from there; without --untrained one is")
    elif found.gate == "refused":
        said.append("  the gate would refuse it:")
    elif found.mode == "selective":
        said.append(
            f"  it could serve {found.coverage:.1%} of different requests, with {found.risk:.2%} of the answers wrong; "
            "as a whole it would be refused:"
        )
    else:
        said.append("  it would become a candidate for all requests; live traffic decides")
    said += [f"    {reason}" for reason in found.reasons]
    said += [f"  {line}" for line in found.told]
    said += [f"    not looked at: {what}" for what in found.not_checked]
    return said + found.saving.lines()
