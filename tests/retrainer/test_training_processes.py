"""A training in two processes, which `accelerate launch` starts by the shipped configurations, is that of one."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from retrainer_fakes import training_folder, training_job
from safetensors.torch import load_file

from retrainer.errors import CycleError, Interrupted, LaunchBroke
from retrainer.train.launch import forwarding
from retrainer.train.sequence import trained
from retrainer.train.zero import settings

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "deploy/training"


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed for the processes that are started, and for them alone."""
    folder = ROOT / ".services/deepspeed"
    if not folder.exists():
        if os.environ.get("CI"):
            pytest.fail("no DeepSpeed: scripts/services did not run")
        pytest.skip("scripts/services fetches DeepSpeed")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{folder}")


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


@pytest.mark.service
@pytest.mark.usefixtures("deepspeed")
@pytest.mark.parametrize(("stage", "method", "resumed"), [(3, "full", False), (3, "full", True), (2, "lora", True)])
def test_deepspeed_trains_what_one_process_does_from_the_start_and_from_its_checkpoint(
    stage: int, method: str, resumed: bool, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch = yaml.safe_load((CONFIGURATIONS / "deepspeed.yaml").read_text())
    launch["deepspeed_config"]["zero_stage"] = stage
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump(launch))
    alone = training_folder(tmp_path / "alone", tiny_base, epochs=1)
    together = training_folder(tmp_path / "together", tiny_base, epochs=1, launch=str(tmp_path / "launch.yaml"))

    def until_the_fourth(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("train", 4):
            raise Interrupted

    if resumed:
        with pytest.raises(Interrupted):
            trained(training_job(alone, until_the_fourth), method)  # type: ignore[arg-type]
        shutil.copytree(alone / "train", together / "train")
    one, two = (trained(training_job(folder), method) for folder in (alone, together))  # type: ignore[arg-type]
    assert (one["steps"], two["steps"], two["processes"]) == (6, 6, 1 if resumed else 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert [loss for _, loss in two["validation"]] == pytest.approx([loss for _, loss in one["validation"]], rel=1e-3)
    assert_the_same_weights(alone, together)


def test_a_launch_that_fails_says_what_it_wrote(tiny_base: Path, tmp_path: Path) -> None:
    folder = training_folder(tmp_path / "none", tiny_base, launch="nowhere.yaml")
    with pytest.raises(CycleError, match=r"retrain\.launch: there is no file nowhere\.yaml"):
        trained(training_job(folder), "lora")
    (tmp_path / "bad.yaml").write_text("no_such_key: 1\n")
    folder = training_folder(tmp_path / "bad", tiny_base, launch=str(tmp_path / "bad.yaml"))
    with pytest.raises(LaunchBroke, match=r"ended with status \d+, its log .*launch\.log with: ") as broke:
        trained(training_job(folder), "lora")
    assert broke.value.retryable
    assert "distributed_type" in (folder / "launch.log").read_text()


@pytest.mark.parametrize(
    ("zero", "weight", "says"),
    [
        ({"stage": 1}, torch.ones(2), r"zero_stage is 1; write 2 or 3, or take deploy/training/processes\.yaml"),
        ({"stage": 3, "offload_param": {"device": "cpu"}}, torch.ones(2), "offload_param_device must be none"),
        ({"stage": 3}, torch.ones(2, dtype=torch.uint8), r"NF4 base; take deploy/training/fsdp\.yaml"),
    ],
)
def test_what_deepspeed_is_not_supported_for_is_refused(
    zero: dict[str, object], weight: torch.Tensor, says: str
) -> None:
    with pytest.raises(CycleError, match=says):
        settings({"zero_optimization": zero}, [weight], 1.0, 2)
    good = {"stage": 2, "offload_param": {"device": "none"}}
    made = settings({"zero_optimization": good, "fp16": "kept"}, [torch.ones(2)], 0.5, 2)
    assert (made["zero_optimization"], made["fp16"], made["gradient_clipping"]) == (good, "kept", 0.5)


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_a_launch_by_deepspeed_without_it_says_so(tiny_base: Path, tmp_path: Path) -> None:
    folder = training_folder(tmp_path / "without", tiny_base, launch=str(CONFIGURATIONS / "deepspeed.yaml"))
    with pytest.raises(LaunchBroke, match="DeepSpeed is not installed"):
        trained(training_job(folder), "full")


def test_sigterm_reaches_the_processes_at_once(tmp_path: Path) -> None:
    """While they are in a step, and tell nothing."""
    mark = tmp_path / "told"
    code = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(mark)!r}, 'w').close(), sys.exit(75)))\n"
        "print(flush=True)\ntime.sleep(60)\n"
    )
    said: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: said.append(number))
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout
            child.stdout.readline()
            with forwarding(child) as came:
                os.kill(os.getpid(), signal.SIGTERM)
                assert child.wait(30) == 75
        assert (came, said, mark.exists()) == ([signal.SIGTERM], [signal.SIGTERM], True)
    finally:
        signal.signal(signal.SIGTERM, before)
