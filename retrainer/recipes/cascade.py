"""Teacher cascade: where the student is much smaller than the teacher, assistants between them are taught first, each
by the one before (Mirzadeh et al. 2019, "Improved knowledge distillation via teacher assistant")."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One stage over all weights for each assistant, and one for the student; each with the logit loss."""
    from retrainer.train.distil import (  # noqa: PLC0415 - heavy: torch
        Stage,
        on_completions,
        open_teacher,
        soft_and_hard,
        teacher_folder,
        train_stage,
    )

    distil = job.policy.retrain.distil
    starts = [*_assistants(job), job.base.folder]
    outs = [*(job.folder / f"assistant-{n}" for n in range(1, len(starts))), merged]
    teacher, stages = teacher_folder(job), []
    for start, out in zip(starts, outs, strict=True):
        stage = Stage(name=out.name, start=start, out=out, rows=job.rows, full=True)
        objective = soft_and_hard(open_teacher(job, str(teacher)), distil)
        stages.append(train_stage(job, stage, on_completions(job, job.rows, objective)))
        teacher = out
    return {**stages[-1], "stages": stages}


def _assistants(job: Job) -> list[Path]:
    """The operator's, or one that is cut from the teacher, half-way (geometrically) in depth to the student."""
    from transformers import AutoConfig  # noqa: PLC0415 - heavy

    from retrainer.errors import CycleError  # noqa: PLC0415
    from retrainer.train.distil import open_teacher, teacher_folder  # noqa: PLC0415 - heavy: torch
    from retrainer.train.prune import prune  # noqa: PLC0415

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
