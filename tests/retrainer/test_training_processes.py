"""A training in two processes, which `accelerate launch` starts by the shipped configurations, is that of one."""

from pathlib import Path

import pytest
from retrainer_fakes import training_folder, training_job
from safetensors.torch import load_file

from retrainer.errors import CycleError
from retrainer.recipes.sequence import trained

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(240)]

CONFIGURATIONS = Path(__file__).parents[2] / "deploy/training"


@pytest.mark.parametrize(("shared", "method"), [("processes", "lora"), ("fsdp", "full")])
def test_two_processes_train_what_one_does(
    shared: str, method: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch = str(CONFIGURATIONS / f"{shared}.yaml")
    alone = training_folder(tmp_path / "alone", tiny_base, epochs=1)
    together = training_folder(tmp_path / "together", tiny_base, epochs=1, launch=launch)
    told: list[tuple[str, int]] = []
    one = trained(training_job(alone), method)  # type: ignore[arg-type]
    two = trained(training_job(together, lambda phase, done, *_: told.append((phase, done))), method)  # type: ignore[arg-type]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert [loss for _, loss in two["validation"]] == pytest.approx([loss for _, loss in one["validation"]], rel=1e-3)
    assert {("train", step) for step in range(1, 7)} <= set(told)
    assert_the_same_weights(alone, together)


def assert_the_same_weights(alone: Path, together: Path) -> None:
    one, two = (load_file(folder / "train" / "checkpoint.safetensors") for folder in (alone, together))
    assert one.keys() == two.keys(), "moments, too"
    for key, value in one.items():
        if key.startswith("weight:"):
            assert (two[key] - value).abs().max() < 1e-3


def test_a_launch_that_fails_says_what_it_wrote(tiny_base: Path, tmp_path: Path) -> None:
    folder = training_folder(tmp_path / "none", tiny_base, launch="nowhere.yaml")
    with pytest.raises(CycleError, match=r"retrain\.launch: there is no file nowhere\.yaml"):
        trained(training_job(folder), "lora")
    (tmp_path / "bad.yaml").write_text("no_such_key: 1\n")
    folder = training_folder(tmp_path / "bad", tiny_base, launch=str(tmp_path / "bad.yaml"))
    with pytest.raises(CycleError, match=r"(?s)ended with status.*distributed_type"):
        trained(training_job(folder), "lora")
