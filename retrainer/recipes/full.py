"""Full fine-tuning: all weights learn. It takes four times their memory: weights, gradients and Adam's two moments."""

import shutil
from pathlib import Path
from typing import Any

from exporters.models import staged
from exporters.models.merge import copy_tokenizer
from retrainer.job import Job
from retrainer.train.sequence import trained


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """Train the model; the folder `merged` is the trained one with the base's tokenizer."""
    facts = trained(job, "full")
    if not merged.exists():
        with staged(merged) as staging:
            shutil.copytree(job.folder / "train" / "model", staging, dirs_exist_ok=True)
            copy_tokenizer(job.base.folder, staging)
    return facts
