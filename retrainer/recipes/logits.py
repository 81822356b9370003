"""Logit distillation: the student learns a local teacher's whole distributions beside its texts (Hinton, Vinyals and
Dean 2015)."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job
from retrainer.train.distil import Stage, on_completions, open_teacher, soft_and_hard, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One LoRA stage: alpha T^2 KL + (1 - alpha) cross-entropy."""
    objective = soft_and_hard(open_teacher(job), job.policy.retrain.distil)
    stage = Stage(name="student", start=job.base.folder, out=merged)
    return train_stage(job, stage, on_completions(job, objective))
