"""Task composition: an adapter of its own for each task of a route (each system prompt), all on one base; then combined
into one student: by TIES (Yadav et al. 2023), as a sum (task arithmetic, Ilharco et al. 2022), or by DARE (Yu et al.
2024) and TIES.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from retrainer.data.curate import Example
from retrainer.data.render import Row
from retrainer.job import Job
from retrainer.train.compose import compose
from retrainer.train.objectives import Step, on_completions
from retrainer.train.stage import Stage, train_stage

LEAST = 8  # examples under which a task learns with the largest one


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage for each task, from the base; then the adapters are combined, each with the weight 1."""
    stages = []
    for number, (rows, watched) in enumerate(tasks(job)):
        out = job.folder / f"task-{number}"
        stage = Stage(name=out.name, start=job.base.folder, out=out, rows=rows, watched=watched)
        stages.append({"examples": len(rows), **train_stage(job, stage, on_completions(job, Step.hard))})
    if len(stages) == 1:
        shutil.copytree(job.folder / "task-0", merged, dirs_exist_ok=True)
    else:
        adapters = [job.folder / "train" / f"task-{number}" / "adapter" for number in range(len(stages))]
        compose(job.base.folder, adapters, merged, how=job.policy.retrain.distil.combine)
    return {**stages[-1], "stages": stages}


def tasks(job: Job) -> list[tuple[list[Row], list[Row]]]:
    """The rows of each task and those watched for it, the largest task first."""
    prompts = [_system(example) for example in job.learnt]
    counts = Counter(prompts)
    names = [name for name, count in counts.most_common() if count >= LEAST] or [counts.most_common(1)[0][0]]

    def of(name: str, prompts: list[str], rows: list[Row]) -> list[Row]:
        homes = (prompt if prompt in names else names[0] for prompt in prompts)
        return [row for home, row in zip(homes, rows, strict=True) if home == name]

    watched = [_system(example) for example in job.watched]
    return [(of(name, prompts, job.rows), of(name, watched, job.watched_rows)) for name in names]


def _system(example: Example) -> str:
    return "\n".join(m["content"] for m in example.messages if m["role"] == "system")
