"""When a training is over: its validation loss no longer falls. The best look's weights are what is kept."""

import math
from pathlib import Path
from typing import Any

import msgspec

from retrainer.train import checkpoint
from retrainer.train.step import Loss, Stepper, Units


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What a training watches: the mean loss over `batches` (numbers of examples; by `units_of`), at `looks`
    evenly spaced steps, of which the last is the last step. `patience`: looks without a loss lower than the best so
    far after which it ends: 3, as in Keras' and transformers' examples of early stopping (Prechelt 1998, UP_3)."""

    batches: list[list[int]]
    loss_of: Loss
    units_of: Units
    looks: int = 8
    patience: int = 3


class Watch:
    """`looks`: [step, loss] of those that have been; grows. The best one's weights are in the file `best`."""

    def __init__(
        self, validation: Validation | None, best: Path, *, steps: int, looks: list[tuple[int, float]]
    ) -> None:
        self._validation, self._best, self.looks = validation, best, looks
        count = validation.looks if validation and validation.batches else 0
        self._due = {math.ceil(steps * k / count) for k in range(1, count + 1)} if count else set()

    @property
    def best_step(self) -> int | None:
        """The step of the lowest loss so far."""
        return min(self.looks, key=lambda look: look[1])[0] if self.looks else None

    @property
    def converged(self) -> bool:
        """Whether the loss hasn't fallen for so many looks."""
        if self._validation is None or not self.looks:
            return False
        since = sum(step > (self.best_step or 0) for step, _ in self.looks)
        return since >= self._validation.patience

    def look(self, stepper: Stepper, model: Any, step: int) -> None:
        """Measure, where the step is one to look at."""
        if self._validation is None or step not in self._due:
            return
        watched = self._validation
        self.looks.append((step, stepper.mean_loss(watched.loss_of, watched.batches, watched.units_of)))
        if self.best_step == step:
            checkpoint.save_weights(self._best, model, main=stepper.main)

    def take_best(self, model: Any) -> None:
        """Give the model the weights of its best look, where later ones were worse."""
        if self.looks and self.best_step != self.looks[-1][0]:
            checkpoint.load_weights(self._best, model)
