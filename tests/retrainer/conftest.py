from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from retrainer_fakes import CountedLog

from collector import SubjectKeys, open_subjects
from retrainer.data.render import Row, render


@pytest.fixture
def keys() -> SubjectKeys:
    return open_subjects("sqlite:///:memory:")


@pytest.fixture
def log() -> CountedLog:
    return CountedLog()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture(scope="session")
def rows(tokenizer: Any) -> list[Row]:
    """400 examples of the tiny task."""
    return [render(tokenizer, tiny_model.messages(n), tiny_model.answer(tiny_model.question(n))) for n in range(400)]


@pytest.fixture(scope="session")
def teacher(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, all its weights trained: it knows the task."""
    from distil_jobs import FULL, job
    from retrainer_fakes import example
    from training_runs import right_of_100

    from retrainer.train.objectives import Step, on_completions
    from retrainer.train.stage import Stage, train_stage

    folder = tmp_path_factory.mktemp("teacher")
    made = job(folder, tiny_base, "lora", examples=[example(n) for n in range(400)], retrain=FULL)
    stage = Stage(name="teacher", start=tiny_base, out=folder / "teacher", full=True)
    train_stage(made, stage, on_completions(made, Step.hard))
    assert right_of_100(folder / "teacher") >= 97
    return folder / "teacher"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads gain nothing on a tiny model, and lose a lot on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
