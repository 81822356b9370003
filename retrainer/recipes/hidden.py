"""Hidden-state distillation: every layer of the student is drawn to one of the teacher's, through a learned projection
(FitNets, Romero et al. 2014; TinyBERT, Jiao et al. 2019), beside the soft and hard targets."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights: the logit loss + the mean distance of the layers' states."""
    from retrainer.train.distil import Stage, open_teacher, train_stage  # noqa: PLC0415 - heavy: torch
    from retrainer.train.transfer import hidden_states  # noqa: PLC0415

    stage = Stage(name="student", start=job.base.folder, out=merged, rows=job.rows, full=True)
    return train_stage(job, stage, hidden_states(job, job.rows, open_teacher(job)))
