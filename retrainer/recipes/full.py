"""Full fine-tuning: all weights learn. It takes four times their memory: weights, gradients and Adam's two moments."""

import shutil
from pathlib import Path
from typing import Any

from exporters.models.merge import copy_tokenizer
from retrainer.recipes.job import Job
from retrainer.recipes.sequence import trained


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """Train the model; the folder `merged` is the trained one with the base's tokenizer."""
    facts = trained(job, "full")
    if not merged.exists():
        staging = merged.with_name(f".{merged.name}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(job.folder / "train" / "model", staging)
        copy_tokenizer(job.base.folder, staging)
        staging.rename(merged)
    return facts
