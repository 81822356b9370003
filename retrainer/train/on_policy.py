"""A student's own samples as training data, corrected by a teacher.

Why not trl's trainers: they bring a loop of their own, whose checkpoints are pickled and don't resume exactly. The loss
is the same: the tests hold it against trl's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from retrainer.data.render import Row
from retrainer.job import Job
from retrainer.train.batches import IGNORED, completion_logits
from retrainer.train.ends import end_tokens
from retrainer.train.losses import generalised_jsd
from retrainer.train.models import causal
from retrainer.train.objectives import Build, Step, batch_of, taught
from retrainer.train.step import Loss


def on_own_samples(job: Job, teacher: Any, *, most: int) -> Build:
    """The generalised JSD at T = 1, on sampled answers in a share `distil.on_policy` of the batches (of those
    that are only watched none): of each answer, of at most `most` tokens, the mean over its tokens, as Agarwal et al.
    take it, so that a student's long ramblings don't outweigh the others. What is settled is not sampled, and has the
    cross-entropy of its answer."""
    distil = job.policy.retrain.distil

    def build(student: Any, rows: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            chosen = [rows[i] for i in numbers]
            # The checkpoint keeps the random state: it draws the same again.
            if numbers[0] < len(job.rows) and float(torch.rand(())) < distil.on_policy:
                drawn = sample(student, chosen, most=most, tokenizer=job.tokenizer)
                chosen = [row if row.settled else one for row, one in zip(chosen, drawn, strict=True)]
            batch = batch_of(job, chosen)
            labels = batch.labels[batch.labels != IGNORED]
            step = Step(numbers, batch, completion_logits(causal(student), batch), labels)
            apart = generalised_jsd(step.logits, taught(teacher, step), beta=distil.beta)
            each = torch.where(batch.settled, step.hard(), apart) * batch.weights
            return (batch.summed(each) / batch.owner.bincount()).sum(), batch.tokens

        return student, loss

    return build


def sample(student: Any, rows: Sequence[Row], *, most: int, tokenizer: Any) -> list[Row]:
    """The same prompts and weights with completions of at most `most` tokens, drawn from the student at T = 1."""
    ends, width = end_tokens(causal(student), tokenizer), max(len(row.prompt) for row in rows)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    where = next(student.parameters()).device
    ids = torch.full((len(rows), width), pad, device=where)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt, device=where)
        mask[i, width - len(row.prompt) :] = 1
    with _drawing(student) as model, torch.no_grad():
        drawn = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=most,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
        )[:, width:].tolist()
    stops = [next((n for n, token in enumerate(tokens, 1) if token in ends), len(tokens)) for tokens in drawn]
    return [Row(row.prompt, tokens[:stop], row.weight) for row, tokens, stop in zip(rows, drawn, stops, strict=True)]


@contextmanager
def _drawing(student: Any) -> Iterator[Any]:
    """The model, for as long as it draws: without the settings of generation that its base came with (a repetition
    penalty, say), which would bend its distribution."""
    model = causal(student)
    own, model.generation_config = model.generation_config, GenerationConfig()
    student.eval()
    try:
        yield model
    finally:
        student.train()
        model.generation_config = own
