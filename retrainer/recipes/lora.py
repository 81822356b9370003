"""LoRA: low-rank updates of all linear layers, merged into the base (Hu et al. 2021). fp32 on a CPU, bf16 on CUDA."""

from pathlib import Path
from typing import Any

import msgspec

from exporters.models import merge
from retrainer.recipes.causal import Causal
from retrainer.recipes.job import Job


class Lora(Causal):
    """See Recipe."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, fit)


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """Train the adapter, and merge it."""
    from retrainer.train.chat import Settings, train  # noqa: PLC0415 - heavy: torch, peft

    retrain = job.policy.retrain
    settings = Settings(
        rank=retrain.lora_rank,
        alpha=2 * retrain.lora_rank,
        learning_rate=retrain.learning_rate,
        batch_size=retrain.batch_size,
        epochs=retrain.epochs,
        seed=retrain.seed,
        max_steps=job.max_steps,
    )
    folder = job.folder / "train"
    trained = train(job.base.folder, job.rows, folder, settings, tokenizer=job.tokenizer, progress=job.progress)
    probe = job.rows[0].prompt + job.rows[0].completion
    moved = merge(job.base.folder, folder / "adapter", merged, probe=probe)
    return {
        "settings": msgspec.to_builtins(settings),
        **msgspec.to_builtins(trained),
        "merged": msgspec.to_builtins(moved),
    }
