"""LoRA: low-rank updates of all linear layers, merged into the base (Hu et al. 2021). fp32 on a CPU, bf16 on CUDA."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from exporters.models import merge
from retrainer.job import Job
from retrainer.train.sequence import trained


def fit(job: Job, merged: Path, *, method: Literal["lora", "qlora"] = "lora") -> dict[str, Any]:
    """Train the adapter, and merge it into the unquantized base."""
    facts = trained(job, method)
    probe = job.rows[0].prompt + job.rows[0].completion
    moved = merge(job.base.folder, job.folder / "train" / "adapter", merged, probe=probe)
    return {**facts, "merged": msgspec.to_builtins(moved)}
