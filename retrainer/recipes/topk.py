"""Logit distillation from an API: the alternatives that it tells for each token (`top_logprobs`) are learnt beside its
texts; all that it doesn't tell is one more alternative, the tail."""

from pathlib import Path
from typing import Any

import torch

from retrainer.job import Job
from retrainer.train.losses import top_k_divergence
from retrainer.train.objectives import Step, on_completions
from retrainer.train.stage import Stage, train_stage
from retrainer.train.top_k import stack, told


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One LoRA stage: alpha KL over the told alternatives and the tail + (1 - alpha) cross-entropy; a token of which
    nothing is told has the cross-entropy alone."""
    alpha, targets = job.policy.retrain.distil.alpha, told(job)

    def objective(step: Step) -> torch.Tensor:
        order = step.batch.owner.unique_consecutive().tolist()  # packing puts examples in another
        known, ids, logprobs = stack([targets[step.numbers[i]] for i in order], step.logits.device)
        hard = step.hard()
        soft = hard.masked_scatter(known, top_k_divergence(step.logits[known], ids, logprobs))
        return alpha * soft + (1 - alpha) * hard

    stage = Stage(name="student", start=job.base.folder, out=merged)
    facts = train_stage(job, stage, on_completions(job, objective))
    return {**facts, "with_logprobs": sum(any(one) for one in targets[: len(job.rows)])}
