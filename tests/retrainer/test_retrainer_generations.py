"""A student is taught by its route's last registered one."""

from pathlib import Path
from typing import Any

import daemon_run
import pytest
import tiny_model
from test_retrainer_cycle import Bench, Killed, kill_in

from exporters.models import Store, digest
from retrainer.begin import begin
from retrainer.generations import earlier
from retrainer.state import Cycles, Request
from router.config import Config

SELF = {"recipe": "self", "engine": "local"}


def config(state: Path, student: dict[str, Any], **distil: Any) -> Config:
    return daemon_run.config(state, base="b", student=SELF | student, distil=distil)


def ended(settings: Config, cycle_id: str, outcome: str | None) -> Path:
    """A cycle as it leaves its dense student; returns that one's folder."""
    cycles = Cycles(settings.state)
    state = begin(settings, cycles, Request(cycle_id=cycle_id, route="colours"))
    state.outcome = outcome
    cycles.save(state)
    merged = cycles.folder(cycle_id) / "merged"
    merged.mkdir()
    (merged / "config.json").write_text("{}")
    (merged.parent / "train").mkdir()
    return merged


def next_one(settings: Config, cycle_id: str = "next") -> str | None:
    """Begin another cycle; returns what teaches it."""
    return begin(settings, Cycles(settings.state), Request(cycle_id=cycle_id, route="colours")).earlier


@pytest.mark.train
@pytest.mark.usefixtures("one_thread")
def test_the_second_generation_learns_from_the_firsts_weights_and_goes_on_so_after_a_kill(tmp_path: Path) -> None:
    tiny = tiny_model.build(tmp_path / "tiny")
    bench = Bench(tmp_path / "s", tiny, route={"student": {"base": str(tiny), **SELF}}, epochs=4)
    store, cycles = Store(bench.config.artefacts), Cycles(bench.config.state)
    first = bench.run("first")
    assert first.outcome == "registered"
    told = store.manifest("first").training
    assert ([stage["stage"] for stage in told["stages"]], told["teachers"]) == (["first", "student"], {})

    with pytest.raises(Killed):
        bench.run("second", progress=kill_in("train", 20))
    assert not (first.folder / "train").exists()
    assert bench.run("second").outcome == "registered"
    told = store.manifest("second").training
    weights = first.folder / "merged"
    assert [stage["stage"] for stage in told["stages"]] == ["student"]
    assert told["teachers"] == {str(weights): digest(weights / "model.safetensors")}
    state = cycles.load("second")
    assert state is not None
    assert state.policy["retrain"]["distil"]["teacher"] is None, "the route's policy is as it was given"

    begin(bench.config, cycles, Request(cycle_id="third", route="colours"))
    assert not weights.exists()
    assert (cycles.folder("second") / "merged").exists()


def test_a_refused_student_teaches_nobody_and_the_registered_one_before_it_does(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", {})
    good, bad = ended(settings, "good", "registered"), ended(settings, "bad", "refused")
    assert next_one(settings) == str(good)
    assert good.exists()
    assert not bad.exists()
    assert {path.name for path in good.parent.iterdir()} == {"state.json", "merged"}


def test_an_unfinished_generation_keeps_its_teacher_whatever_ends_besides(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", {})
    one = ended(settings, "one", "registered")
    ended(settings, "waits", None)
    two = ended(settings, "two", "registered")
    assert next_one(settings) == str(two)
    assert one.exists()


@pytest.mark.parametrize(
    ("student", "distil"),
    [({"recipe": "lora"}, {}), ({"base": "another"}, {}), ({}, {"teacher": "named"})],
)
def test_without_use_for_it_an_earlier_student_is_removed(
    tmp_path: Path, student: dict[str, str], distil: dict[str, str]
) -> None:
    """Another recipe, another base (whose tokens may be others), a teacher that is named."""
    before = ended(config(tmp_path / "s", {}), "before", "registered")
    assert next_one(config(tmp_path / "s", student, **distil)) is None
    assert not before.exists()


def test_what_a_policy_names_of_a_finished_cycle_stays(tmp_path: Path) -> None:
    before = ended(config(tmp_path / "s", {}), "before", "refused")
    within = before.parent / "rungs" / "lora-1-b" / "merged"
    within.mkdir(parents=True)
    student = {"recipe": "cascade", "base": str(before)}
    assert next_one(config(tmp_path / "s", student, assistants=(str(within),))) is None
    assert before.exists()
    assert within.exists()
    assert not (before.parent / "train").exists()


def test_a_student_whose_folder_was_removed_teaches_nobody(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", {})
    merged = ended(settings, "before", "registered")
    (merged / "config.json").unlink()
    assert earlier(Cycles(settings.state), "colours", settings.routes["colours"]) is None
