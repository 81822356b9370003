"""How often a training saves: where that takes long, at most a twentieth of the time goes there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from retrainer.train import checkpoint, loop
from retrainer.train.step import Stepper

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(("saving", "most_steps", "saves"), [(0.0, 500, [6, 12, 18, 24, 30]), (2.0, 500, [6, 30]),
                                                             (2.0, 10, [6, 10, 20, 30])])  # fmt: skip
def test_a_save_that_takes_long_is_done_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saving: float, most_steps: int, saves: list[int]
) -> None:
    """A step takes a second; `saving` seconds a checkpoint, which is due every 5."""
    at, found = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: at[0]))

    def save(path: Path, model: Any, optimizer: Any, facts: dict[str, Any], *, main: bool) -> None:
        at[0] += saving
        found.append(facts["step"])

    step = Stepper.step

    def slow(self: Stepper, *given: Any) -> tuple[float, int]:
        at[0] += 1.0
        return step(self, *given)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(Stepper, "step", slow)
    model = torch.nn.Linear(1, 1)
    settings = loop.LoopSettings(checkpoint_seconds=5.5, checkpoint_steps=most_steps)
    loop.run(model, [[0]] * 30, lambda _: (model(torch.ones(1, 1)).sum() ** 2, 1), tmp_path, settings)
    assert found == saves
