"""Self-distillation: a student is taught by its own earlier generation (born-again networks, Furlanello et al. 2018):
`distil.teacher`, which a cycle sets to the route's last registered student where its dense weights are kept
(`retrainer.generations`), or else one that is trained on the texts first."""

from pathlib import Path
from typing import Any

from retrainer.job import Job
from retrainer.train.models import open_teacher
from retrainer.train.objectives import Step, on_completions, soft_and_hard
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage on the texts, where no earlier generation is named; then one from the base with the logit loss."""
    earlier, stages = job.policy.retrain.distil.teacher, []
    if earlier is None:
        first = Stage(name="first", start=job.base.folder, out=job.folder / "first", share=0.5)
        stages.append(train_stage(job, first, on_completions(job, Step.hard)))
        earlier = str(first.out)
    objective = soft_and_hard(open_teacher(job, earlier), job.policy.retrain.distil)
    second = Stage(name="student", start=job.base.folder, out=merged, share=0.5 if stages else 1.0)
    stages.append(train_stage(job, second, on_completions(job, objective)))
    return {**stages[-1], "stages": stages}
