"""A student cut out of its teacher: structured pruning by importance, then distillation from the whole teacher
(Minitron, Muralidharan et al. 2024; with `layers: spread`, DistilBERT's every second layer, Sanh et al. 2019)."""

from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.train.models import open_teacher, teacher_folder
from retrainer.train.objectives import on_completions, soft_and_hard
from retrainer.train.prune import prune
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """Prune, then one stage over all weights with the logit loss."""
    start = job.folder / "pruned"
    if not start.exists():
        prune(job, open_teacher(job), teacher_folder(job), start)
    objective = soft_and_hard(open_teacher(job), job.policy.retrain.distil)
    stage = Stage(name="student", start=start, out=merged, full=True)
    return train_stage(job, stage, on_completions(job, objective))
