"""The training loop that all recipes share: a schedule, clipping, checkpoints, an estimate; a killed one goes on.

A batch that doesn't fit into memory is taken in halves, whose gradients (and losses, where one is only looked at) add
up to the whole batch's. Several processes
(`accelerate launch`) share each batch the same way. A training whose validation loss no longer falls ends, with the
weights of its best look.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from retrainer.data.render import Row
from retrainer.errors import Interrupted, TrainingDiverged
from retrainer.progress import Meter, Progress, silent
from retrainer.train import checkpoint
from retrainer.train.batches import order
from retrainer.train.converge import Validation, Watch
from retrainer.train.step import Loss, Stepper, Units

SAVING = 20.0  # a 46 GB checkpoint takes a minute


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`warmup`: share of the steps over which the rate rises; it then falls to 0 along a cosine. `clip`: greatest norm
    of the gradient. A checkpoint is written when either `checkpoint_steps` or `checkpoint_seconds` have passed: by
    default every 500 steps, as transformers' Trainer does, and every 30 s, since a step on a CPU takes seconds; but 20
    times as long as the last one took to write passes between those by time."""

    learning_rate: float = 4e-4
    batch_size: int = 16
    epochs: float = 1.0
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    max_steps: int | None = None
    checkpoint_steps: int = 500
    checkpoint_seconds: float = 30.0


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training did. `losses`: one a step. `validation`: [step, loss] of each look, `best_step` the one whose
    weights were taken (None: the last step's). `parts`: pieces in which a batch fitted into memory. `processes`: that
    began the training. `tokens`: that went through the model, a shared prefix once a batch. `seconds`: of training,
    over all its resumptions."""

    steps: int
    losses: list[float]
    tokens: int
    seconds: float
    device: str
    validation: list[tuple[int, float]] = []
    best_step: int | None = None
    parts: int = 1
    processes: int = 1


def device() -> torch.device:
    """Where models are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def plan(rows: Sequence[Row], settings: LoopSettings) -> list[list[int]]:
    """Every step's batch (numbers of rows), over all epochs."""
    epochs = round(settings.epochs, 9)  # a fifth of five is one
    steps = math.ceil(epochs * len(rows) / settings.batch_size)
    found: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        found += order(rows, size=settings.batch_size, seed=settings.seed, epoch=epoch)
    return found[: min(steps, settings.max_steps or steps)]


def run(
    model: Any,
    batches: Sequence[list[int]],
    loss_of: Loss,
    folder: Path,
    settings: LoopSettings,
    *,
    units_of: Units = lambda _: 1.0,
    validation: Validation | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train those weights of a model that ask for a gradient; resumes from `folder`/checkpoint.safetensors.

    A step's loss is the sum that `loss_of` gives of its batch, over its batch's units. bf16 autocast on CUDA. An
    Interrupted that `progress` raises passes through after a checkpoint. Raises TrainingDiverged, OutOfMemory,
    CycleError.
    """
    where = next(model.parameters()).device
    stepper = Stepper(model, loss_of, units_of, settings.learning_rate, settings.weight_decay, settings.clip)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "checkpoint.safetensors"
    facts: dict[str, Any] = {"step": 0, "losses": [], "tokens": 0, "seconds": 0.0, "validation": []}
    facts |= {"parts": 1, "processes": stepper.processes}
    if saved.exists():
        facts = checkpoint.load(saved, model, stepper.optimizer)
    stepper.parts = facts["parts"]
    watch = Watch(validation, folder / "best.safetensors", steps=len(batches), looks=facts["validation"])
    meter = Meter(progress, "train", len(batches), done=facts["step"])
    began = last_saved = time.monotonic()
    pause = settings.checkpoint_seconds
    before = facts["seconds"]

    def save() -> None:
        checkpoint.save(saved, model, stepper.optimizer, facts, main=stepper.main)

    for step in range(facts["step"], len(batches)):
        if watch.converged:
            break
        rate = settings.learning_rate * schedule(step, len(batches), settings.warmup)
        loss, tokens = stepper.step(batches[step], rate)
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss or its gradient at step {step} is no number; lower retrain.learning_rate")
        facts["step"] = step + 1
        facts["losses"].append(loss)
        facts["tokens"] += tokens
        watch.look(stepper, model, step + 1)
        facts["parts"] = stepper.parts
        now = time.monotonic()
        facts["seconds"] = before + now - began
        last = facts["step"] == len(batches) or watch.converged
        (due,) = stepper.agree(stepper.main and now - last_saved >= pause)  # who writes knows how long that takes
        if due := due or last or facts["step"] % settings.checkpoint_steps == 0:
            save()
            last_saved = time.monotonic()
            pause = max(settings.checkpoint_seconds, SAVING * (last_saved - now))
        stop = False
        try:
            meter(facts["step"])
        except Interrupted:
            stop = True
        (stop,) = stepper.agree(stop)
        if stop:
            if not due:
                save()
            raise Interrupted
    watch.take_best(model)
    return Trained(
        steps=facts["step"],
        losses=facts["losses"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        device=where.type,
        validation=watch.looks,
        best_step=watch.best_step,
        parts=facts["parts"],
        processes=facts["processes"],
    )


def schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up in a line, then down to 0 along half a cosine."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
