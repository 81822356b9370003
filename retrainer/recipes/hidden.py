"""Hidden-state distillation: every layer of the student is drawn to one of the teacher's, through a learned projection
(FitNets, Romero et al. 2014; TinyBERT, Jiao et al. 2019), beside the soft and hard targets."""

from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.train.models import open_teacher
from retrainer.train.stage import Stage, train_stage
from retrainer.train.transfer import hidden_states


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights: the logit loss + the mean distance of the layers' states."""
    stage = Stage(name="student", start=job.base.folder, out=merged, full=True)
    return train_stage(job, stage, hidden_states(job, open_teacher(job)))
