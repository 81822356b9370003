"""Attention transfer: the student learns how the teacher's tokens look at each other: relations of queries, of keys and
of values (MiniLMv2, Wang et al. 2020), so that neither heads nor width need agree; beside the soft and hard targets."""

from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.train.models import open_teacher
from retrainer.train.stage import Stage, train_stage
from retrainer.train.transfer import attention_relations


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights: the logit loss + the divergence of the last layer's relations."""
    stage = Stage(name="student", start=job.base.folder, out=merged, full=True)
    return train_stage(job, stage, attention_relations(job, open_teacher(job)))
