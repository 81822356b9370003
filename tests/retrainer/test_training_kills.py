"""A training that is ended at any moment, in real processes, comes to the same student as one that isn't."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from retrainer_fakes import training_folder
from safetensors import safe_open
from safetensors.torch import load_file

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]

HERE = Path(__file__).parent

# Loads the libraries once, then trains and merges in a child of its own for each line "FOLDER TRAP"; says how it ended.
STUDENTS = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
import torch
torch.set_num_threads(1)
import peft, transformers
from retrainer_fakes import training_job
from retrainer.errors import Interrupted
from retrainer.recipes import RECIPES
from retrainer.stopping import Stoppable

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def nothing(*_):
    pass

def in_a_step(phase, done, *_):
    if done == 5:
        killed()

checkpoints = 0

def in_a_checkpoint(event, arguments):
    global checkpoints
    if event == "os.rename" and str(arguments[0]).endswith(".checkpoint.safetensors.tmp"):
        checkpoints += 1
        if checkpoints == 2:
            os.truncate(arguments[0], 1000)  # half written
            killed()

def in_writing(event, arguments):
    path = str(arguments[0]) if event == "open" else ""
    if (".merged.tmp" in path and "tokenizer" in path) or path.endswith(".model.tmp/closed.json"):
        killed()

def student(folder, trap):
    if trap in ("in_a_checkpoint", "in_writing"):
        sys.addaudithook(globals()[trap])
    progress = in_a_step if trap == "in_a_step" else nothing
    if trap == "sigterm":
        progress = Stoppable(lambda phase, done, *_: print(done, flush=True))
        progress.listen()
    try:
        job = training_job(folder, progress)
        RECIPES[job.student.recipe](job).train()
    except Interrupted:
        os._exit(75)
    os._exit(0)

for line in sys.stdin:
    folder, trap = line.split()
    child = os.fork()
    if child == 0:
        student(Path(folder), trap)
    print("pid", child, flush=True)
    print("end", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Students:
    """Processes that train, one after another."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", STUDENTS, str(HERE), str(HERE.parent)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def begin(self, folder: Path, trap: str = "none") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder} {trap}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> int:
        """The status of the one that was begun; minus the signal that killed it."""
        while not (line := self.line()).startswith("end"):
            assert line, "the process of the students is gone"
        return int(line.split()[1])


@pytest.fixture(scope="module")
def students() -> Iterator[Students]:
    made = Students()
    yield made
    made.close()


@pytest.mark.parametrize("recipe", ["lora", "quantized", "on_policy", "encoder"])
def test_killed_in_a_step_in_a_checkpoint_and_in_writing_the_student_is_the_same(
    students: Students, tiny_base: Path, tmp_path: Path, recipe: str
) -> None:
    distil = {"teacher": str(tiny_base)}
    whole, cut = (
        training_folder(tmp_path / name, tiny_base, recipe=recipe, distil=distil) for name in ("whole", "cut")
    )
    made = "train/model/dense.safetensors" if recipe == "encoder" else "merged/model.safetensors"
    students.begin(whole)
    assert students.end() == 0
    for trap in ("in_a_step", "in_a_checkpoint", "in_writing"):
        students.begin(cut, trap)
        assert students.end() == -signal.SIGKILL, trap
        assert not (cut / made).exists()
    students.begin(cut)
    assert students.end() == 0
    assert (whole / made).read_bytes() == (cut / made).read_bytes()
    if recipe == "lora":
        checkpoints = [load_file(folder / "train" / "checkpoint.safetensors") for folder in (whole, cut)]
        assert all(torch.equal(value, checkpoints[1][key]) for key, value in checkpoints[0].items())


def test_sigterm_ends_a_training_in_time_with_a_checkpoint_of_its_last_step(
    students: Students, tiny_base: Path, tmp_path: Path
) -> None:
    folder = training_folder(tmp_path / "student", tiny_base, epochs=200, checkpoint_steps=10**6)
    students.begin(folder, "sigterm")
    last = pid = 0
    while not (pid and last >= 7):
        word, _, number = students.line().partition(" ")
        last, pid = (last, int(number)) if word == "pid" else (int(word), pid)
    os.kill(pid, signal.SIGTERM)
    while (line := students.line()).strip().isdigit():
        last = int(line)
    assert line == "end 75\n"
    assert last < 1200  # of 1,200 steps
    with safe_open(folder / "train" / "checkpoint.safetensors", framework="pt") as stored:
        assert f'"step": {last},' in stored.metadata()["facts"]
