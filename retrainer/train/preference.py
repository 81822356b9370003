"""Pairs of answers, the better first, and a student that learns to prefer it.

The loss is DPO + the cross-entropy of the chosen answer (Pang et al. 2024, "Iterative reasoning preference
optimization", who give it the weight 1): without it, DPO lowers the probability of both where they differ in a token or
two (Pal et al. 2024, "Smaug"), as labels and JSON do.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import torch

from retrainer.data.render import Row, render
from retrainer.evaluation.scorer import scorer
from retrainer.recipes.job import Job
from retrainer.train.batches import IGNORED, Batch, completion_logits
from retrainer.train.distil import Build, batch_of, causal
from retrainer.train.losses import preference
from retrainer.train.step import Loss
from router import split_thinking


class Pair(msgspec.Struct, frozen=True):
    """`chosen`: the teacher's answer, `rejected`: the student's, to the same prompt."""

    chosen: Row
    rejected: Row


def lost_pairs(job: Job) -> list[Pair]:
    """The training examples whose shadow pair the student lost by the route's score. (One that scores 1 is as good.)"""
    score = scorer(job.policy.quality.score, job.state)
    found = []
    for example in job.data.train:
        if example.rejected is None:
            continue
        thought, said = split_thinking(example.rejected)
        answer, reference = ({"role": "assistant", "content": t} for t in (said, example.answer))
        with suppress(ValueError):  # the teacher's answer is nothing to compare with
            scored = score(answer=answer, reference=reference, finish_reason="stop", asked=example.asked)
            if scored.value < 1.0:
                lost = render(job.tokenizer, example.messages, said, reasoning=thought)
                pair = Pair(job.row(example), lost)
                if len(pair.rejected.prompt + pair.rejected.completion) <= job.policy.retrain.max_tokens:
                    found.append(pair)
    return found


def preferring(job: Job, pairs: Sequence[Pair]) -> Build:
    """DPO + cross-entropy of the chosen; the reference is the student without its adapter."""
    beta = job.policy.retrain.distil.preference_beta

    def build(student: Any) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            some = [pairs[i] for i in numbers]
            batch = batch_of(job, [pair.chosen for pair in some] + [pair.rejected for pair in some])
            mine = _answers(student, batch)
            with torch.no_grad(), student.disable_adapter():
                reference = _answers(student, batch)
            chosen, rejected = (mine - reference).chunk(2)
            tokens = sum(len(pair.chosen.completion) for pair in some)
            hard = -mine[: len(some)].sum() / tokens
            return preference(chosen, rejected, beta=beta) + hard, 2 * batch.tokens

        return student, loss

    return build


def _answers(student: Any, batch: Batch) -> torch.Tensor:
    """log p of each row's completion, [B]: the sum over its tokens."""
    labelled = batch.labels != IGNORED
    logs = torch.log_softmax(completion_logits(causal(student), batch).float(), dim=-1)
    each = logs.gather(-1, batch.labels[labelled][:, None])[:, 0]
    row = torch.nonzero(labelled)[:, 0]
    return torch.zeros(len(labelled), device=each.device).index_add(0, row, each)
