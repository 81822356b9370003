"""The training loop that all recipes share: a schedule, clipping, checkpoints, an estimate; a killed one goes on."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from retrainer.data.render import Row
from retrainer.errors import TrainingDiverged
from retrainer.progress import Meter, Progress, silent
from retrainer.train import checkpoint
from retrainer.train.batches import order


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`warmup`: share of the steps over which the rate rises; it then falls to 0 along a cosine. `clip`: greatest norm
    of the gradient. A checkpoint is written when either `checkpoint_steps` or `checkpoint_seconds` have passed."""

    learning_rate: float = 4e-4
    batch_size: int = 16
    epochs: float = 1.0
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    max_steps: int | None = None
    checkpoint_steps: int = 50
    checkpoint_seconds: float = 30.0


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training did. `losses`: one a step. `tokens`: that went through the model, a shared prefix once a batch.
    `seconds`: of training, over all its resumptions."""

    steps: int
    losses: list[float]
    tokens: int
    seconds: float
    device: str


Loss = Callable[[list[int]], tuple[torch.Tensor, int]]  # of examples, by their numbers; and its tokens


def device() -> torch.device:
    """Where models are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def plan(rows: Sequence[Row], settings: LoopSettings) -> list[list[int]]:
    """Every step's batch (numbers of rows), over all epochs."""
    steps = math.ceil(settings.epochs * len(rows) / settings.batch_size)
    found: list[list[int]] = []
    for epoch in range(math.ceil(settings.epochs)):
        found += order(rows, size=settings.batch_size, seed=settings.seed, epoch=epoch)
    return found[: min(steps, settings.max_steps or steps)]


def run(
    model: Any,
    batches: Sequence[list[int]],
    loss_of: Loss,
    folder: Path,
    settings: LoopSettings,
    *,
    progress: Progress = silent,
) -> Trained:
    """Train those weights of a model that ask for a gradient; resumes from `folder`/checkpoint.safetensors.

    bf16 autocast on CUDA. Raises TrainingDiverged, CycleError.
    """
    where = next(model.parameters()).device
    model.train()
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "checkpoint.safetensors"
    facts: dict[str, Any] = {"step": 0, "losses": [], "tokens": 0, "seconds": 0.0}
    if saved.exists():
        facts = checkpoint.load(saved, model, optimizer)
    meter = Meter(progress, "train", len(batches), done=facts["step"])
    began = last_saved = time.monotonic()
    before = facts["seconds"]
    for step in range(facts["step"], len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, len(batches), settings.warmup)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=where.type == "cuda"):
            loss, tokens = loss_of(batches[step])
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(f"the loss at step {step} is {loss.item()}; lower retrain.learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        now = time.monotonic()
        facts["step"] = step + 1
        facts["losses"].append(loss.item())
        facts["tokens"] += tokens
        facts["seconds"] = before + now - began
        due = facts["step"] % settings.checkpoint_steps == 0 or now - last_saved >= settings.checkpoint_seconds
        if due or facts["step"] == len(batches):
            checkpoint.save(saved, model, optimizer, facts)
            last_saved = now
        meter(facts["step"])
    return Trained(
        steps=facts["step"],
        losses=facts["losses"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        device=where.type,
    )


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up in a line, then down to 0 along half a cosine."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
