"""Logit distillation: the student learns a local teacher's whole distributions beside its texts (Hinton, Vinyals and
Dean 2015)."""

from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.train.models import open_teacher
from retrainer.train.objectives import on_completions, soft_and_hard
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One LoRA stage: alpha T^2 KL + (1 - alpha) cross-entropy."""
    objective = soft_and_hard(open_teacher(job), job.policy.retrain.distil)
    stage = Stage(name="student", start=job.base.folder, out=merged)
    return train_stage(job, stage, on_completions(job, objective))
