"""Calibrated uncertainty: the teacher's distributions are softened where it is unsure and corrected where it is wrong,
before they are learnt (after CUD, Kim et al. 2026, arXiv:2602.12687), so that the student's confidence means something.
"""

from pathlib import Path
from typing import Any

import torch

from retrainer.job import Job
from retrainer.train.losses import divergence, uncertain_targets
from retrainer.train.models import open_teacher
from retrainer.train.objectives import Step, on_completions, taught
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One LoRA stage: alpha KL(shaped targets || student) + (1 - alpha) cross-entropy."""
    distil, teacher = job.policy.retrain.distil, open_teacher(job)

    def objective(step: Step) -> torch.Tensor:
        targets = uncertain_targets(taught(teacher, step), step.labels, temperature=distil.temperature)
        return step.mixed(divergence(step.logits, targets), distil.alpha)

    stage = Stage(name="student", start=job.base.folder, out=merged)
    return train_stage(job, stage, on_completions(job, objective))
