"""LoRA on a causal language model: it learns to give the teacher's answers, and the loss is taken on those alone.

Two things make it fit a CPU and change no gradient (5e-7 relative, measured): the prefix that a batch shares is
computed once, and the vocabulary's logits only where a completion token is predicted; see `retrainer.train.batches`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from exporters.models import sync
from retrainer.data.render import Row
from retrainer.progress import Progress, silent
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits
from retrainer.train.loop import LoopSettings, Trained, device, plan, run


class Settings(LoopSettings, frozen=True, kw_only=True):
    """One training. The rank, the rate and the batch are those that taught SmolLM2-135M the sample task best."""

    rank: int = 16
    alpha: int = 32


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
    torch.manual_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device())
    model = _adapted(model, settings)

    def loss_of(numbers: list[int]) -> tuple[torch.Tensor, int]:
        batch = collate([rows[i] for i in numbers], pad=tokenizer.pad_token_id or 0, device=model.device)
        return _loss(model, batch), batch.tokens

    trained = run(model, plan(rows, settings), loss_of, folder, settings, progress=progress)
    _save_adapter(model, folder / "adapter")
    return trained


def _adapted(model: Any, settings: Settings) -> Any:
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(model, config)


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the batch's completion tokens, each times its example's weight (1 in the data set's
    mean)."""
    logits = completion_logits(model.get_base_model(), batch)
    targets = batch.labels[batch.labels != IGNORED]
    return (batch.weights * torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")).mean()


def _save_adapter(model: Any, folder: Path) -> None:
    staging = folder.with_name(f".{folder.name}.tmp")
    model.save_pretrained(staging)
    for file in staging.iterdir():
        sync(file)
    if not folder.exists():
        staging.rename(folder)
