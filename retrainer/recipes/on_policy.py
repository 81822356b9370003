"""On-policy distillation: the student answers by itself, and a local teacher corrects every token of it, by the
generalised Jensen-Shannon divergence (Agarwal et al. 2023): it learns to go on from its own mistakes."""

from pathlib import Path
from typing import Any

from retrainer.evaluation.generate import longest_answer
from retrainer.job import Job
from retrainer.train.models import open_teacher
from retrainer.train.objectives import Step, on_completions
from retrainer.train.on_policy import on_own_samples
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage on the texts, since only a student that says something sensible learns from its own words; then one
    in which a share of the batches are the student's samples, the others the logged answers."""
    teacher = open_teacher(job)
    texts = Stage(name="texts", start=job.base.folder, out=job.folder / "texts", share=0.5)
    stages = [train_stage(job, texts, on_completions(job, Step.hard))]
    stage = Stage(name="own", start=texts.out, out=merged, share=0.5, mean="answers")
    most = longest_answer(job.tokenizer, [e.said for e in job.data.train])
    stages.append(train_stage(job, stage, on_own_samples(job, teacher, most=most)))
    return {**stages[-1], "stages": stages}
