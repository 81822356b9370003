"""Pairs of answers, the better first, and a student that learns to prefer it.

The loss is DPO + the mean cross-entropy of the chosen answer's tokens (Pang et al. 2024, "Iterative reasoning
preference optimization", who give it the weight 1): without it, DPO lowers the probability of both where they differ in
a token or two (Pal et al. 2024, "Smaug"), as labels and JSON do.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from retrainer.data.render import Row
from retrainer.job import Job
from retrainer.train.batches import IGNORED, Batch, completion_logits
from retrainer.train.losses import preference
from retrainer.train.models import causal
from retrainer.train.objectives import Build, batch_of
from retrainer.train.step import Loss


class Pair(msgspec.Struct, frozen=True):
    """`chosen`: the teacher's answer, `rejected`: the student's, to the same prompt."""

    chosen: Row
    rejected: Row


def preferring(job: Job, pairs: Sequence[Pair]) -> Build:
    """DPO + cross-entropy of the chosen; the reference is the student without its adapter."""
    beta = job.policy.retrain.distil.preference_beta

    def build(student: Any, _: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            some = [pairs[i] for i in numbers]
            batch = batch_of(job, [pair.chosen for pair in some] + [pair.rejected for pair in some])
            mine = _answers(student, batch)
            with torch.no_grad(), student.disable_adapter():
                reference = _answers(student, batch)
            chosen, rejected = (mine - reference).chunk(2)
            lengths, weights = (
                torch.tensor(values, device=mine.device)
                for values in ([len(p.chosen.completion) for p in some], [p.chosen.weight for p in some])
            )
            each = preference(chosen, rejected, beta=beta) - mine[: len(some)] / lengths
            return (weights * each).sum(), 2 * batch.tokens

        return student, loss

    return build


def _answers(student: Any, batch: Batch) -> torch.Tensor:
    """log p of each example's completion, [examples]: the sum over its tokens."""
    logs = torch.log_softmax(completion_logits(causal(student), batch).float(), dim=-1)
    return batch.summed(logs.gather(-1, batch.labels[batch.labels != IGNORED][:, None])[:, 0])
