"""What goes wrong in a training: too little memory, a loss that is no number or no longer falls."""

from pathlib import Path
from typing import Any

import pytest
import torch

from retrainer.data.render import Row
from retrainer.errors import Interrupted, OutOfMemory, TrainingDiverged
from retrainer.train.chat import Settings, prepare, train
from retrainer.train.converge import Validation
from retrainer.train.loop import LoopSettings, Trained, plan, run

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

SETTINGS = Settings(learning_rate=5e-3, checkpoint_steps=3, checkpoint_seconds=1e9)

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)


def with_little_memory(training: Any, folder: Path, *, most: int, error: RuntimeError) -> tuple[Trained, list[int]]:
    """Train where more than `most` examples at once don't fit; and how many were tried."""
    tried: list[int] = []

    def loss_of(numbers: list[int]) -> tuple[torch.Tensor, int]:
        tried.append(len(numbers))
        found: tuple[torch.Tensor, int] = training._loss([training.rows[i] for i in numbers])
        if len(numbers) > most:
            raise error
        return found

    units_of = lambda i: len(training.rows[i].completion)  # noqa: E731
    batches = plan(training.rows, training.settings)
    return run(training.model, batches, loss_of, folder, training.settings, units_of=units_of), tried


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
def test_a_batch_too_large_for_the_memory_is_taken_in_parts_and_the_student_is_the_same(
    error: RuntimeError, tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    some = rows[:90]  # the last batch is a small one
    whole = prepare(tiny_base, some, SETTINGS, tokenizer=tokenizer)
    expected = whole.run(tmp_path / "whole")
    little = prepare(tiny_base, some, SETTINGS, tokenizer=tokenizer)
    found, tried = with_little_memory(little, tmp_path / "little", most=5, error=error)
    assert tried[:3] == [16, 8, 4]
    assert max(tried[3:]) == 4  # found once, it isn't tried again
    assert (found.parts, expected.parts) == (4, 1)
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    weights = dict(whole.model.named_parameters())
    for name, weight in little.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-2, atol=1e-4)


def test_where_not_even_one_example_fits_the_training_says_so(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    training = prepare(tiny_base, rows[:32], SETTINGS, tokenizer=tokenizer)
    with pytest.raises(OutOfMemory, match=r"1 example.* lower retrain\.max_tokens"):
        with_little_memory(training, tmp_path, most=0, error=CUDA)
    training = prepare(tiny_base, rows[:32], SETTINGS, tokenizer=tokenizer)
    with pytest.raises(RuntimeError, match="another"):
        with_little_memory(training, tmp_path, most=0, error=RuntimeError("another"))


@pytest.mark.parametrize("most", [2, 1])
def test_a_look_at_the_validation_loss_too_large_for_the_memory_is_taken_in_parts_with_the_same_loss(
    most: int, tmp_path: Path
) -> None:
    def trained(folder: Path, most: int) -> Trained:
        model = Line()

        def watched(numbers: list[int]) -> tuple[torch.Tensor, int]:
            if len(numbers) > most:
                raise CUDA
            return (model.w * torch.tensor(numbers)).square().sum(), 1

        validation = Validation(batches=[[*range(5)], [5]], loss_of=watched, units_of=float, looks=2)
        loss_of = lambda _: (model.w.square().sum(), 1)  # noqa: E731
        return run(model, [[0, 1]] * 4, loss_of, folder, LoopSettings(), validation=validation)

    whole, parts = trained(tmp_path / "whole", 5), trained(tmp_path / "parts", most)
    assert parts.validation == [(step, pytest.approx(loss)) for step, loss in whole.validation]
    assert (whole.parts, parts.parts) == (1, {2: 4, 1: 8}[most])
    with pytest.raises(OutOfMemory, match="1 example"):
        trained(tmp_path / "none", 0)


class Line(torch.nn.Module):
    """y = w x, in which the loss of a training is a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([3.0]))


def test_a_gradient_that_is_no_number_ends_the_training_before_it_reaches_the_weights(tmp_path: Path) -> None:
    model = Line()

    def loss_of(numbers: list[int]) -> tuple[torch.Tensor, int]:
        return (model.w - model.w.detach()).abs().sqrt().sum(), 1  # 0, with an infinite slope

    with pytest.raises(TrainingDiverged, match=r"lower retrain\.learning_rate"):
        run(model, [[0]] * 3, loss_of, tmp_path, LoopSettings())
    assert model.w.item() == 3.0


def test_a_training_ends_where_the_validation_loss_no_longer_falls_with_the_best_weights(tmp_path: Path) -> None:
    """Training pulls w to 0, the validation loss is lowest at 2: it falls for a while, then rises."""
    model = Line()
    validation = Validation(
        batches=[[0]], loss_of=lambda _: ((model.w - 2.0).square().sum(), 1), units_of=lambda _: 1.0, looks=20
    )
    settings = LoopSettings(learning_rate=0.1, warmup=0.0)
    trained = run(model, [[0]] * 40, lambda _: (model.w.square().sum(), 1), tmp_path, settings, validation=validation)
    assert trained.best_step is not None
    steps = [step for step, _ in trained.validation]
    assert steps == list(range(2, trained.steps + 1, 2))
    assert trained.steps == trained.best_step + 3 * 2  # patience: three looks
    assert trained.steps < 40
    assert (model.w.item() - 2.0) ** 2 == pytest.approx(min(loss for _, loss in trained.validation))
    again = Line()
    finished = run(again, [[0]] * 40, lambda _: (again.w.square().sum(), 1), tmp_path, settings, validation=validation)
    assert again.w.item() == model.w.item()  # a finished training is finished
    assert finished.validation == [list(look) for look in trained.validation]


def test_the_learning_curve_is_kept(tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path) -> None:
    trained = train(tiny_base, rows[:160], tmp_path, SETTINGS, tokenizer=tokenizer, watched=rows[200:232])
    assert [step for step, _ in trained.validation] == [2, 3, 4, 5, 7, 8, 9, 10]
    assert trained.validation[-1][1] < 0.2 * trained.validation[0][1]
    assert trained.best_step == 10


def test_told_to_stop_a_training_saves_where_it_stands_and_goes_on_there(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    def stop(phase: str, done: int, total: int, seconds_left: float | None) -> None:
        if done == 4:  # no multiple of checkpoint_steps
            raise Interrupted

    whole = train(tiny_base, rows[:160], tmp_path / "whole", SETTINGS, tokenizer=tokenizer)
    with pytest.raises(Interrupted):
        train(tiny_base, rows[:160], tmp_path / "cut", SETTINGS, tokenizer=tokenizer, progress=stop)
    began: list[int] = []
    cut = train(
        tiny_base,
        rows[:160],
        tmp_path / "cut",
        SETTINGS,
        tokenizer=tokenizer,
        progress=lambda phase, done, total, left: began.append(done),
    )
    assert began[0] == 4
    assert cut.losses == whole.losses
