"""Iterative layer-wise distillation: layers go a few at a time, the least important first, and after each round the
student heals by the teacher's logits and by the states of the very layers that it still has (after Minitron's iterative
pruning and TinyBERT's layer matching)."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from retrainer.job import Job
from retrainer.train.models import open_teacher, teacher_folder
from retrainer.train.prune import cut
from retrainer.train.stage import Stage, train_stage
from retrainer.train.transfer import hidden_states


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """As many rounds as asked for: cut, then a stage with the route's epochs shared among them."""
    distil, deep = job.policy.retrain.distil, AutoConfig.from_pretrained(teacher_folder(job)).num_hidden_layers
    least = max(1, round(deep * distil.keep_layers))
    rounds = min(distil.rounds, max(1, deep - least))
    current, origins = teacher_folder(job), list(range(deep))
    stages = []
    for number in range(1, rounds + 1):
        count = deep - round((deep - least) * number / rounds)
        start = job.folder / f"cut-{number}"
        origins = cut(job, current, origins, count, start)
        out = merged if number == rounds else job.folder / f"round-{number}"
        stage = Stage(name=f"round-{number}", start=start, out=out, full=True, share=1 / rounds)
        # The teacher anew, and for the round alone: the hooks on it keep what it has seen.
        stages.append(train_stage(job, stage, hidden_states(job, open_teacher(job), origins=origins)))
        current = out
    return {**stages[-1], "layers": origins, "stages": stages}
