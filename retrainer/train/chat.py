"""LoRA on a causal language model: it learns to give the teacher's answers, and the loss is taken on those alone.

Two things make it fit a CPU and change no gradient (5e-7 relative, measured): the prefix that a batch shares is
computed once, and the vocabulary's logits only where a completion token is predicted; see `retrainer.train.batches`.
"""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from exporters.models import sync
from retrainer.data.render import Row
from retrainer.errors import TrainingDiverged
from retrainer.progress import Meter, Progress, silent
from retrainer.train import checkpoint
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits, order


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One training. The rank, the rate and the batch are those that taught SmolLM2-135M the sample task best.

    `warmup`: share of the steps over which the rate rises; it then falls to 0 along a cosine. `clip`: greatest norm
    of the gradient. A checkpoint is written when either `checkpoint_steps` or `checkpoint_seconds` have passed.
    """

    rank: int = 16
    alpha: int = 32
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
    """What a training did. `losses`: one a step (mean over the batch's completion tokens). `tokens`: that went through
    the model, a shared prefix once a batch. `seconds`: of training, over all its resumptions."""

    steps: int
    losses: list[float]
    tokens: int
    seconds: float
    device: str


def train(
    base: Path,
    rows: Sequence[Row],
    folder: Path,
    settings: Settings,
    *,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = silent,
) -> Trained:
    """Train an adapter and write it to `folder`/adapter (peft's format). Resumes from `folder`/checkpoint.safetensors.

    fp32 on a CPU (bf16 is slow without AVX-512), bf16 autocast on CUDA. Raises TrainingDiverged, CycleError.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    model = _adapted(model, settings)
    model.train()
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    plan = _plan(rows, settings)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "checkpoint.safetensors"
    facts: dict[str, Any] = {"step": 0, "losses": [], "tokens": 0, "seconds": 0.0}
    if saved.exists():
        facts = checkpoint.load(saved, model, optimizer)

    meter = Meter(progress, "train", len(plan), done=facts["step"])
    began = last_saved = time.monotonic()
    before = facts["seconds"]
    for step in range(facts["step"], len(plan)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, len(plan), settings.warmup)
        batch = collate([rows[i] for i in plan[step]], pad=tokenizer.pad_token_id or 0, device=device)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = _loss(model, batch)
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(f"the loss at step {step} is {loss.item()}; lower retrain.learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        now = time.monotonic()
        facts["step"] = step + 1
        facts["losses"].append(loss.item())
        facts["tokens"] += batch.tokens
        facts["seconds"] = before + now - began
        due = facts["step"] % settings.checkpoint_steps == 0 or now - last_saved >= settings.checkpoint_seconds
        if due or facts["step"] == len(plan):
            checkpoint.save(saved, model, optimizer, facts)
            last_saved = now
        meter(facts["step"])
    _save_adapter(model, folder / "adapter")
    return Trained(
        steps=facts["step"],
        losses=facts["losses"],
        tokens=facts["tokens"],
        seconds=facts["seconds"],
        device=device.type,
    )


def _adapted(model: Any, settings: Settings) -> Any:
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(model, config)


def _plan(rows: Sequence[Row], settings: Settings) -> list[list[int]]:
    """Every step's batch (indices of rows), over all epochs."""
    steps = math.ceil(settings.epochs * len(rows) / settings.batch_size)
    plan: list[list[int]] = []
    for epoch in range(math.ceil(settings.epochs)):
        plan += order(rows, size=settings.batch_size, seed=settings.seed, epoch=epoch)
    return plan[: min(steps, settings.max_steps or steps)]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up in a line, then down to 0 along half a cosine."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the batch's completion tokens."""
    logits = completion_logits(model.get_base_model(), batch)
    return torch.nn.functional.cross_entropy(logits.float(), batch.labels[batch.labels != IGNORED])


def _save_adapter(model: Any, folder: Path) -> None:
    staging = folder.with_name(f".{folder.name}.tmp")
    model.save_pretrained(staging)
    for file in staging.iterdir():
        sync(file)
    if not folder.exists():
        staging.rename(folder)
