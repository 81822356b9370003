"""`retort sweep ROUTE`: a study of the training settings, its report, and what to put into the configuration."""

import time
from pathlib import Path

import msgspec

from collector import open_interactions
from exporters.models import ArtefactError
from retort.errors import StartError
from retort.studies import SWEEP, at_work, begun, ended, study_config
from retort.sweep.report import report, said
from retort.sweep.study import Sweep
from retort.training_bar import TrainingBar
from retrainer import CycleState, NotEnoughExamples, RetrainerError
from retrainer.data.dataset import load
from retrainer.errors import Interrupted
from router import Config


class SweepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`trials`: all together, those of earlier runs included. `recipe`, `seed`: None: as the route's. `out`: folder of
    the report; None: out/sweep-ROUTE. `who`: for the audit log."""

    trials: int = 20
    recipe: str | None = None
    examples: int | None = None
    seed: int | None = None
    out: str | None = None
    who: str = "retort"


def sweep(config: Config, route: str, options: SweepOptions, *, as_json: bool = False) -> int:
    """Run a study, or go on with it; returns 0. Raises StartError."""
    policy = config.routes.get(route)
    if policy is None or policy.student is None:
        known = [name for name, p in sorted(config.routes.items()) if p.student]
        raise StartError(f"no route {route!r} with a student; the configuration has: {', '.join(known) or 'none'}")
    if policy.retrain.launch is not None:
        raise StartError(
            f"routes.{route}.retrain.launch: a sweep trains in one process; leave it out, and take a smaller base or "
            "--examples for the sweep"
        )
    changes: dict[str, dict[str, object]] = {"student": {}, "retrain": {}}
    if options.recipe is not None:
        changes["student"] = {"recipe": options.recipe}
    if options.examples is not None:
        changes["retrain"] = {"max_examples": options.examples}
    out = Path(options.out or f"out/sweep-{''.join(c if c.isalnum() else '-' for c in route)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"--out {out}: the report can't be written there: {error.strerror}") from error
    study = study_config(config, route, name=SWEEP, changes=changes)
    student = study.routes[route].student
    recipe = student.recipe if student else ""
    with at_work(config, study, route) as unwanted:
        work = Sweep(study, route, seed=policy.retrain.seed if options.seed is None else options.seed)
        if len(work.finished) < options.trials:
            with TrainingBar(unwanted) as bar:
                _run(work, study, route, options, bar)
        if not work.finished:
            print(f"{route}: the recipe {recipe} reads none of the settings that a sweep varies")
            return 0
        found = report(work.study, work.finished, route, recipe, out)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print("\n".join([*said(found), "", f"report: {out / 'report.md'}; the study: {study.state}"]))
    return 0


def _run(work: Sweep, study: Config, route: str, options: SweepOptions, bar: TrainingBar) -> None:
    state: CycleState | None = None
    try:
        with open_interactions(study) as interactions:
            state = begun(study, route, reason="sweep", who=options.who)
            began = time.monotonic()
            work.run(interactions, options.trials, bar)
            state.phases["dataset"] = msgspec.to_builtins(load(Path(study.state) / "dataset").manifest)
            state.seconds["sweep"] = time.monotonic() - began
            ended(study, state, "swept")
    except Interrupted:
        raise  # at_work says why
    except (RetrainerError, ArtefactError) as error:
        if state is not None:
            ended(study, state, "skipped" if isinstance(error, NotEnoughExamples) else "failed", error=str(error))
        raise StartError(str(error)) from error
