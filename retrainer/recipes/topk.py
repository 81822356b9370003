"""Logit distillation from an API: the alternatives that it tells for each token (`top_logprobs`) are learnt beside its
texts; all that it doesn't tell is one more alternative, the tail."""

from pathlib import Path
from typing import Any

from retrainer.recipes.job import Job


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """One LoRA stage: alpha KL over the told alternatives and the tail + (1 - alpha) cross-entropy; a token of which
    nothing is told has the cross-entropy alone."""
    import torch  # noqa: PLC0415 - heavy

    from retrainer.train.distil import Stage, Step, on_completions, train_stage  # noqa: PLC0415 - heavy: torch
    from retrainer.train.losses import top_k_divergence  # noqa: PLC0415
    from retrainer.train.top_k import stack, told  # noqa: PLC0415

    alpha, targets = job.policy.retrain.distil.alpha, told(job)

    def objective(step: Step) -> torch.Tensor:
        known, ids, logprobs = stack([targets[i] for i in step.numbers], step.logits.device)
        hard = step.hard()
        soft = hard.masked_scatter(known, top_k_divergence(step.logits[known], ids, logprobs))
        return alpha * soft + (1 - alpha) * hard

    stage = Stage(name="student", start=job.base.folder, out=merged, rows=job.rows)
    facts = train_stage(job, stage, on_completions(job, job.rows, objective))
    return {**facts, "with_logprobs": sum(any(one) for one in targets)}
