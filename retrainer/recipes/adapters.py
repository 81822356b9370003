"""Task composition: an adapter of its own for each task of a route (each system prompt), all on one base; then combined
into one student, by TIES (Yadav et al. 2023), as a sum (task arithmetic, Ilharco et al. 2022), or as peft does besides.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job

LEAST = 8  # examples under which a task learns with the largest one


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage for each task, from the base; then the adapters are combined, each with the weight 1."""
    from retrainer.train.compose import compose  # noqa: PLC0415 - heavy: torch
    from retrainer.train.distil import Stage, Step, on_completions, train_stage  # noqa: PLC0415

    stages = []
    for number, examples in enumerate(tasks(job)):
        rows = [job.rows[i] for i in examples]
        stage = Stage(name=f"task-{number}", start=job.base.folder, out=job.folder / f"task-{number}", rows=rows)
        stages.append({"examples": len(rows), **train_stage(job, stage, on_completions(job, rows, Step.hard))})
    if len(stages) == 1:
        shutil.copytree(job.folder / "task-0", merged, dirs_exist_ok=True)
    else:
        adapters = [job.folder / "train" / f"task-{number}" / "adapter" for number in range(len(stages))]
        compose(job.base.folder, adapters, merged, how=job.policy.retrain.distil.combine)
    return {**stages[-1], "stages": stages}


def tasks(job: Job) -> list[list[int]]:
    """The training examples of each task by their numbers, the largest task first."""
    prompts = ["\n".join(m["content"] for m in e.messages if m["role"] == "system") for e in job.data.train]
    counts = Counter(prompts)
    names = [name for name, count in counts.most_common() if count >= LEAST] or [counts.most_common(1)[0][0]]
    homes = [prompt if prompt in names else names[0] for prompt in prompts]
    return [[i for i, home in enumerate(homes) if home == name] for name in names]
