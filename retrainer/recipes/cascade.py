"""Teacher cascade: where the student is much smaller than the teacher, assistants between them are taught first, each
by the one before (Mirzadeh et al. 2019, "Improved knowledge distillation via teacher assistant")."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from retrainer.errors import CycleError
from retrainer.job import Job
from retrainer.train.models import open_teacher, teacher_folder
from retrainer.train.objectives import on_completions, soft_and_hard
from retrainer.train.prune import prune
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights for each assistant, and one for the student; each with the logit loss."""
    distil = job.policy.retrain.distil
    starts = [*_assistants(job), job.base.folder]
    outs = [*(job.folder / f"assistant-{n}" for n in range(1, len(starts))), merged]
    teacher, stages = teacher_folder(job), []
    for start, out in zip(starts, outs, strict=True):
        stage = Stage(name=out.name, start=start, out=out, full=True)
        objective = soft_and_hard(open_teacher(job, str(teacher)), distil)
        stages.append(train_stage(job, stage, on_completions(job, objective)))
        teacher = out
    return {**stages[-1], "stages": stages}


def _assistants(job: Job) -> list[Path]:
    """The operator's, or one that is cut from the teacher, half-way (geometrically) in depth to the student."""
    if named := job.policy.retrain.distil.assistants:
        return [teacher_folder(job, name) for name in named]
    share = AutoConfig.from_pretrained(job.base.folder).num_hidden_layers
    share /= AutoConfig.from_pretrained(teacher_folder(job)).num_hidden_layers
    if share >= 1:
        raise CycleError("recipe cascade: the teacher is no deeper than the student; name retrain.distil.assistants")
    cut = job.folder / "assistant"
    if not cut.exists():
        prune(job, open_teacher(job), teacher_folder(job), cut, share=share**0.5)
    return [cut]
