"""Attention transfer: the student learns how the teacher's tokens look at each other: relations of queries, of keys and
of values (MiniLMv2, Wang et al. 2020), so that neither heads nor width need agree; beside the soft and hard targets."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights: the logit loss + the divergence of the last layer's relations."""
    from retrainer.train.distil import Stage, open_teacher, train_stage  # noqa: PLC0415 - heavy: torch
    from retrainer.train.transfer import attention_relations  # noqa: PLC0415

    stage = Stage(name="student", start=job.base.folder, out=merged, rows=job.rows, full=True)
    return train_stage(job, stage, attention_relations(job, job.rows, open_teacher(job)))
