"""The study: Optuna draws settings, each is trained and judged on records of the validation part that judge no cycle.

The present settings are the first trial. A trial is trained for a third of its epochs first, and given up where it is
worse there than the median of those before it (Golovin et al. 2017); TPE draws the next one (Bergstra et al. 2011).
Everything is kept in the study's folder, so an interrupted study goes on, a killed training at its last checkpoint.
"""

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from collector import Interactions
from retort.errors import StartError
from retort.sweep.space import Reads, changed, distributions, present
from retort.training_bar import TrainingBar
from retrainer import Report, Request, RetrainerError
from retrainer.errors import Interrupted
from retrainer.evaluation.evaluate import evaluate
from retrainer.phases import Phases
from retrainer.recipes import RECIPES, Job
from retrainer.scoring import scorer
from router import Config, RoutePolicy

FIRST_SHARE = 1.0 / 3.0  # of the epochs, after which a trial may be given up
STARTUP = 4  # trials before any is given up, and before TPE takes over from chance
MOST_JUDGED = 500  # records; the interval of a share is then at most about 4 points to either side
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Sweep:
    """One route's study. `config`: the study's own, whose state folder it works in."""

    def __init__(self, config: Config, route: str, *, seed: int) -> None:
        self._config, self._route, self._seed = config, route, seed
        self._policy = config.routes[route]
        self._folder = Path(config.state)
        recipe = self._policy.student.recipe if self._policy.student else ""
        if recipe not in RECIPES:
            raise StartError(f"a sweep is of one recipe: say --recipe {'|'.join(RECIPES)}")
        self._recipe = RECIPES[recipe]
        self._score = scorer(self._policy.quality.score, config.state)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            study_name=route,
            storage=f"sqlite:///{self._folder.absolute()}/study.db",
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        )

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials with an end: judged, given up, or failed by themselves."""
        return [t for t in self.study.trials if t.state in _DONE or "error" in t.user_attrs]

    def run(self, interactions: Interactions, trials: int, bar: TrainingBar) -> None:
        """Go on until there are so many. Raises RetrainerError where the present settings can't be trained."""
        if not (self._folder / "dataset").exists():
            request = Request(cycle_id="sweep", route=self._route)
            work = Phases(self._config, request, self._job(self._policy, self._folder, bar))
            work.prepare()
            work.dataset(interactions)
        if not self._begun:
            self._present(bar)
        space = distributions(self.study.user_attrs["present"])
        if not space:
            return  # this recipe has nothing to vary
        for killed in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.enqueue_trial(killed.params)
            self.study.tell(killed.number, state=TrialState.FAIL)
        while (done := len(self.finished)) < trials:
            # As many draws as there were trials: a study that goes on doesn't repeat itself.
            self.study.sampler = optuna.samplers.TPESampler(seed=self._seed + done, n_startup_trials=STARTUP)
            bar.before = f"trial {done + 1}/{trials}{self._left(trials - done)}: "
            trial = self.study.ask(space)
            self._try(trial, bar)

    @property
    def _begun(self) -> bool:
        """Whether the present settings are known and, where there is anything to vary, a trial."""
        varied = self.study.user_attrs.get("present")
        return varied == {} or any(trial.user_attrs.get("present") for trial in self.study.trials)

    def _left(self, trials: int) -> str:
        took = [t.duration.total_seconds() for t in self.finished if t.duration and t.state is not TrialState.FAIL]
        if not took:
            return ""
        return f" (about {sum(took) / len(took) * trials / 60:.0f} min left)"

    def _present(self, bar: TrainingBar) -> None:
        """Train by the present settings, and see which of them the recipe reads."""
        bar.before = "present settings: "
        began = time.monotonic()
        reads: set[str] = set()
        watched = self._policy.model_copy(update={"retrain": Reads(self._policy.retrain, reads)})
        report, settings = self._measure(watched, "present", bar)
        current = present(self._policy, reads, settings)
        steps = {1: report.agreement}
        if "epochs" in current:
            first, _ = self._measure(changed(self._policy, {}, share=FIRST_SHARE), "present-first", bar)
            steps[0] = first.agreement
        self.study.set_user_attr("present", current)
        if current:
            self.study.add_trial(
                optuna.trial.create_trial(
                    params=current,
                    distributions=distributions(current),
                    value=report.agreement,
                    intermediate_values=steps,
                    user_attrs={**_numbers(report), "present": True, "seconds": time.monotonic() - began},
                )
            )

    def _try(self, trial: optuna.Trial, bar: TrainingBar) -> None:
        try:
            if "epochs" in trial.params:
                report, _ = self._measure(changed(self._policy, trial.params, share=FIRST_SHARE), "first", bar)
                trial.report(report.agreement, 0)
                if trial.should_prune():
                    self.study.tell(trial, state=TrialState.PRUNED)
                    return
            report, _ = self._measure(changed(self._policy, trial.params), "whole", bar)
        except Interrupted:
            raise
        except RetrainerError as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return
        for name, number in _numbers(report).items():
            trial.set_user_attr(name, number)
        trial.report(report.agreement, 1)
        self.study.tell(trial, report.agreement)

    def _measure(self, policy: RoutePolicy, name: str, bar: TrainingBar) -> tuple[Report, Mapping[str, Any]]:
        """Train by a policy, judge by what may choose; the weights are removed. Its folder is named by what it is,
        so that a training that was killed is found again."""
        if name != "present":
            name += "-" + hashlib.sha256(policy.model_dump_json().encode()).hexdigest()[:12]
        folder = self._folder / "trials" / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dataset").exists():
            (folder / "dataset").symlink_to((self._folder / "dataset").absolute(), target_is_directory=True)
        job = self._job(policy, folder, bar)
        recipe = self._recipe(job)
        recipe.prepare()
        trained = recipe.train()
        judged = job.choosing[:MOST_JUDGED]
        answers = [example.said for example in judged]
        report = evaluate(
            recipe.trained().generate,
            judged,
            self._score,
            max_new_tokens=recipe.most_tokens([*(e.said for e in job.data.train), *answers]),
            drafts=answers,
            progress=bar,
        )
        shutil.rmtree(folder)
        return report, trained.get("settings") or {}

    def _job(self, policy: RoutePolicy, folder: Path, bar: TrainingBar) -> Job:
        return Job(self._config.state, policy, folder, bar)


def _numbers(report: Report) -> dict[str, float]:
    return {"n": report.n, "lower": report.lower, "upper": report.upper}
