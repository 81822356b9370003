from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model
from retrainer_fakes import ListLog


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads gain nothing on a tiny model, and lose a lot on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
