"""Preference learning: where a shadowed student lost to its teacher, the next one learns to prefer the teacher's answer
to that one (DPO, Rafailov et al. 2023), after it has learnt the texts."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job
from retrainer.train.objectives import Step, on_completions
from retrainer.train.preference import lost_pairs, preferring
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage on the texts; then one on the lost pairs, where there are any: a route's first student has none."""
    pairs = lost_pairs(job)
    out, share = (job.folder / "texts", 0.5) if pairs else (merged, 1.0)
    texts = Stage(name="texts", start=job.base.folder, out=out, share=share)
    stages = [train_stage(job, texts, on_completions(job, Step.hard))]
    if pairs:
        chosen = [pair.chosen for pair in pairs]
        stage = Stage(name="pairs", start=texts.out, out=merged, rows=chosen, watched=(), share=0.5, mean="answers")
        stages.append(train_stage(job, stage, preferring(job, pairs)))
    return {**stages[-1], "pairs": len(pairs), "stages": stages}
