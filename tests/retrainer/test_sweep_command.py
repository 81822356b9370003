"""`retort sweep`: a study of a really trained tiny model; it goes on where it was killed, and varies what is read."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from daemon_run import config as configured
from daemon_run import log_exchanges
from distil_jobs import job
from optuna.trial import TrialState

from collector import open_interactions
from retort.errors import StartError
from retort.studies import at_work, study_config
from retort.sweep.command import SweepOptions, sweep
from retort.sweep.report import report
from retort.sweep.space import Reads, as_yaml, changed, distributions, present
from retort.sweep.study import Sweep
from retort.training_bar import TrainingBar
from retrainer import Report
from retrainer.audit import entries
from retrainer.recipes import RECIPES
from router import Config, RoutePolicy, open_registry

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


def test_what_a_recipe_reads_is_varied_around_what_it_is_now() -> None:
    policy = configured(Path("unused"), epochs=2).routes["colours"]
    reads: set[str] = set()
    watched = Reads(policy.retrain, reads)
    assert (watched.epochs, watched.batch_size, watched.learning_rate) == (2.0, 16, None)
    current = present(policy, reads | {"max_tokens", "lora_rank"}, {"learning_rate": 4e-4})
    assert current == {"lora_rank": 16, "learning_rate": 4e-4, "epochs": 2.0}
    found = distributions(current)
    assert found["lora_rank"].choices == (8, 16, 64, 128)  # type: ignore[attr-defined]
    assert (found["learning_rate"].low, found["learning_rate"].high) == (1e-4, 1.6e-3)  # type: ignore[attr-defined]
    assert (found["epochs"].low, found["epochs"].high) == (1.0, 3.0)  # type: ignore[attr-defined]
    other = changed(policy, {"lora_rank": 8, "epochs": 3.0}, share=1 / 3).retrain
    assert (other.lora_rank, other.epochs, other.learning_rate) == (8, pytest.approx(1.0), None)
    assert as_yaml("colours", {"lora_rank": 8, "distil.temperature": 4.0, "distil.alpha": 0.7}) == (
        "routes:\n  colours:\n    retrain:\n      lora_rank: 8\n      distil: {temperature: 4, alpha: 0.7}"
    )


def test_what_a_student_of_closed_answers_reads_is_seen_while_it_trains(tmp_path: Path) -> None:
    made = job(tmp_path, tmp_path, "encoder", retrain={"closed": {"epochs": 0}})
    reads: set[str] = set()
    made.policy = made.policy.model_copy(update={"retrain": Reads(made.policy.retrain, reads)})
    settings = RECIPES["encoder"](made).train()["settings"]
    assert set(present(made.policy, reads, settings)) == {"closed.epochs", "closed.learning_rate", "closed.strength"}


class Killed(BaseException):
    """Stands for SIGKILL."""


class KillingBar(TrainingBar):
    """Ends the process, so to say, at a trial's n-th step of training."""

    def __call__(self, phase: str, done: int, total: int, seconds_left: float | None) -> None:
        if self.before.startswith("trial 3/") and phase == "train" and done == 5:
            raise Killed


MEASURED = Report(
    n=4, agreement=0.75, lower=0.5, upper=1.0, confidence=0.95, valid_json=None, leaked=0, unfinished=0, reasons={},
    tokens=1, seconds=1.0, outcomes=[],
)  # fmt: skip


class Untrained(Sweep):
    """Reads settings, but trains nothing; ends the process, so to say, after so many writes to the study."""

    def __init__(self, config: Config, *, writes: int) -> None:
        super().__init__(config, "colours", seed=0)
        self._writes = writes
        for name in ("set_user_attr", "add_trial"):
            setattr(self.study, name, self._killing(getattr(self.study, name)))

    def _killing(self, write: Callable[..., None]) -> Callable[..., None]:
        def then(*given: Any) -> None:
            write(*given)
            self._writes -= 1
            if self._writes == 0:
                raise Killed

        return then

    def _measure(self, policy: RoutePolicy, name: str, bar: TrainingBar) -> tuple[Report, Mapping[str, Any]]:
        assert policy.retrain.lora_rank
        return MEASURED, {}


@pytest.mark.parametrize("writes", [1, 2])
def test_the_present_settings_are_one_trial_whenever_the_study_is_killed(tmp_path: Path, writes: int) -> None:
    config = configured(tmp_path / "state")
    study = study_config(config, "colours", name="sweep", changes={"student": {}, "retrain": {}})
    bar = TrainingBar()
    with at_work(config, study, "colours"), open_interactions(config) as interactions:
        (Path(study.state) / "dataset").mkdir()
        with pytest.raises(Killed):
            Untrained(study, writes=writes).run(interactions, 1, bar)
        work = Untrained(study, writes=100)
        work.run(interactions, 1, bar)
    (trial,) = work.study.trials
    assert (trial.params, trial.value) == ({"lora_rank": 16}, 0.75)
    assert (trial.user_attrs["present"], work.study.user_attrs["present"]) == (True, {"lora_rank": 16})


def test_a_study_is_resumed_and_reported_and_registers_nothing(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), learning_rate=1e-3, epochs=1, batch_size=8)
    log_exchanges(config, range(300))
    study = study_config(config, "colours", name="sweep", changes={"student": {}, "retrain": {}})
    holding = at_work(config, study, "colours")
    with pytest.raises(Killed), holding, KillingBar() as bar, open_interactions(config) as interactions:
        Sweep(study, "colours", seed=0).run(interactions, 7, bar)
    work = Sweep(study, "colours", seed=0)
    (killed,) = work.study.get_trials(states=(TrialState.RUNNING,))
    assert len(work.finished) == 2

    out = tmp_path / "report"
    options = SweepOptions(trials=7, out=str(out), who="eve")
    assert sweep(config, "colours", options, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["failed"]) == (7, 0)
    assert set(found["values"]) == {"lora_rank", "learning_rate", "epochs"}
    assert found["agreement"] > found["present"], "the present rate is too low for this model"
    again = [t.params for t in work.study.trials if t.state is not TrialState.FAIL]
    assert killed.params in again, "what was killed is tried again"
    assert found["settings"].startswith("routes:\n  colours:\n    retrain:\n")
    page = (out / "report.md").read_text()
    assert page.count("| present settings |") == 1
    for name in ("history.png", "parallel.png"):
        assert (out / name).stat().st_size > 10_000
        assert f"]({name})" in page
    assert list((Path(study.state) / "trials").iterdir()) == [], "weights are removed"

    trials = len(work.study.trials)
    assert sweep(config, "colours", options) == 0
    said = capsys.readouterr().out
    assert len(work.study.trials) == trials, "nothing is left to try"
    began, ended = entries(config.state)  # the third command trained nothing
    assert (began.event, began.cycle, began.reason, began.base) == ("began", ended.cycle, "sweep", str(tiny_base))
    assert (ended.event, ended.outcome, ended.who, ended.seed) == ("ended", "swept", "eve", 0)
    assert (ended.dataset or "").startswith("sha256:")
    assert "agreement on the half of the validation part that judges no cycle (95%: " in said
    assert "the best of many looks better than it is; a cycle is judged by the other half and the test part" in said
    assert open_versions(config) == []


def test_a_route_has_one_sweep_at_a_time_also_of_other_settings(tmp_path: Path) -> None:
    config = configured(tmp_path / "state")
    study = study_config(config, "colours", name="sweep", changes={"student": {}, "retrain": {}})
    options = SweepOptions(out=str(tmp_path / "out"), examples=50)
    with at_work(config, study, "colours"), pytest.raises(StartError, match="another sweep of route 'colours'"):
        sweep(config, "colours", options)
    with pytest.raises(StartError, match="no base model 'none'"):  # the lock is free again
        sweep(config, "colours", options)


def open_versions(config: Config) -> list[Any]:
    registry = open_registry(config.registry)
    try:
        return list(registry.versions("colours"))
    finally:
        registry.close()


def test_the_report_shows_which_settings_matter(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    space = distributions({"learning_rate": 1e-3, "epochs": 1.0})
    for number in range(20):
        trial = study.ask(space)
        value = 0.9 - abs(math.log10(trial.params["learning_rate"]) + 2.7)
        for name, number_ in {"lower": value - 0.05, "upper": value + 0.05}.items():
            trial.set_user_attr(name, number_)
        trial.set_user_attr("present", number == 0)
        study.tell(trial, value)
    found = report(study, study.trials, "colours", "lora", tmp_path)
    assert abs(math.log10(found.values["learning_rate"]) + 2.7) < 0.1
    assert found.agreement == max(t.value or 0.0 for t in study.trials) > found.present
    assert [Path(f).name for f in found.files] == ["report.md", "history.png", "importances.png", "parallel.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("importances.png", "history.png", "parallel.png"))


def test_a_sweep_that_can_not_be_says_what_would_be_right(tmp_path: Path) -> None:
    config = configured(tmp_path / "state")
    with pytest.raises(StartError, match="no route 'nope' with a student"):
        sweep(config, "nope", SweepOptions())
    with pytest.raises(StartError, match="no base model 'none'"):
        sweep(config, "colours", SweepOptions(out=str(tmp_path / "out")))
    with pytest.raises(StartError, match=r"--out /proc/none: the report can't be written there"):
        sweep(config, "colours", SweepOptions(out="/proc/none"))
    with pytest.raises(StartError, match=r"routes\.colours\.retrain\.launch: a sweep trains in one process"):
        sweep(configured(tmp_path / "shared", launch="fsdp.yaml"), "colours", SweepOptions())
    log_exchanges(config, range(3))
    with pytest.raises(StartError, match="examples"):
        sweep(config, "colours", SweepOptions(out=str(tmp_path / "out"), recipe="linear"))
    found = [(e.outcome, e.error) for e in entries(config.state) if e.event == "ended"]
    assert [outcome for outcome, _ in found] == ["failed", "skipped"]
    assert "no base model" in (found[0][1] or "")
