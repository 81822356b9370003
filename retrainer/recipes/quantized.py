"""Quantization-aware distillation: a student that knows the task goes on with its weights rounded as the export will
round them, and is drawn back to its own exact answers (after LLM-QAT, Liu et al. 2023, arXiv:2305.17888)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.job import Job
from retrainer.train.fake_quant import bake, fake_quantize
from retrainer.train.models import open_teacher
from retrainer.train.objectives import Step, on_completions, soft_and_hard
from retrainer.train.stage import Stage, train_stage
from retrainer.train.step import Loss


def fit(job: Job, merged: Path, *, rounded: bool = True) -> dict[str, Any]:
    """A stage over all weights on the texts; then one with them rounded in the forward pass, with the logit loss. Its
    teacher is the first stage's exact student, unless `distil.teacher` names another. What is written is rounded.
    Without `rounded` all is the same but the rounding: what the recipe is to be compared with."""
    retrain = job.policy.retrain
    how = retrain.quantized_for(job.serving.runtime)
    if how not in ("int8", "int4"):
        raise CycleError(f"the recipe quantized can round its weights as int8 or int4 does, not as {how}")
    exact = Stage(name="exact", start=job.base.folder, out=job.folder / "exact", full=True, share=0.5)
    stages = [train_stage(job, exact, on_completions(job, Step.hard))]
    objective = soft_and_hard(open_teacher(job, retrain.distil.teacher or str(exact.out)), retrain.distil)
    learn = on_completions(job, objective)

    def build(student: Any, rows: Sequence[Row]) -> tuple[Any, Loss]:
        if rounded:
            fake_quantize(student, how)
        return learn(student, rows)

    stage = Stage(name="rounded", start=exact.out, out=merged, full=True, share=0.5)
    stages.append(train_stage(job, stage, build, finish=bake))
    return {**stages[-1], "stages": stages}
