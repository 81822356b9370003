"""What a stage learns: an objective says of each token that is to be predicted how far the student is from it."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch.nn.functional import cross_entropy

from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.job import Job
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits
from retrainer.train.loop import device
from retrainer.train.losses import divergence, soften
from retrainer.train.models import causal
from retrainer.train.sequence import settings
from retrainer.train.step import Loss
from router.policy_distil import DistilPolicy

# Of a student and the examples that losses number: what is trained, and its loss.
Build = Callable[[Any, Sequence[Row]], tuple[torch.nn.Module, Loss]]
Objective = Callable[["Step"], torch.Tensor]  # one value for each token to predict, [N]


class Step(msgspec.Struct, frozen=True):
    """One batch as an objective sees it. `numbers`: of its examples. `logits` [N, V]: the student's, where the `labels`
    [N], the tokens of the logged answers, are to be predicted."""

    numbers: list[int]
    batch: Batch
    logits: torch.Tensor
    labels: torch.Tensor

    def hard(self) -> torch.Tensor:
        """The cross-entropy of the logged answers, [N]."""
        return cross_entropy(self.logits.float(), self.labels, reduction="none")

    def mixed(self, soft: torch.Tensor, alpha: float) -> torch.Tensor:
        """alpha `soft` [N], what a teacher says, + (1 - alpha) of the logged answers, [N]; what is settled has the
        logged answers' loss alone."""
        hard = self.hard()
        return torch.where(self.batch.settled, hard, alpha * soft + (1 - alpha) * hard)


def soft_and_hard(teacher: Any, distil: DistilPolicy) -> Objective:
    """alpha T^2 KL(teacher || student) at T + (1 - alpha) cross-entropy of the logged answers, [N]; see Step.mixed."""

    def objective(step: Step) -> torch.Tensor:
        soft = divergence(step.logits, soften(taught(teacher, step), distil.temperature), distil.temperature)
        return step.mixed(soft, distil.alpha)

    return objective


def taught(teacher: Any, step: Step) -> torch.Tensor:
    """A teacher's logits [N, V] at the student's places. (Vocabularies are padded to different sizes: cut to V.)"""
    with torch.no_grad():
        logits = completion_logits(teacher, step.batch)
    width = step.logits.shape[-1]
    if logits.shape[-1] < width:
        raise CycleError(f"the teacher knows {logits.shape[-1]} tokens, the student {width}: resize one of them")
    return logits[:, :width]


def on_completions(job: Job, objective: Objective) -> Build:
    """The usual way to train: an objective of the student's logits at the completions' tokens, each token's times its
    example's weight."""

    def build(student: Any, rows: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            batch = batch_of(job, [rows[i] for i in numbers])
            labels = batch.labels[batch.labels != IGNORED]
            step = Step(numbers, batch, completion_logits(causal(student), batch), labels)
            return (batch.weights * objective(step)).sum(), batch.tokens

        return student, loss

    return build


def batch_of(job: Job, rows: Sequence[Row]) -> Batch:
    """Rows as one batch, as the route's policy lays them out."""
    width = settings(job.policy.retrain, "full").row_width
    return collate(rows, pad=job.tokenizer.pad_token_id or 0, device=device(), width=width)
