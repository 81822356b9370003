"""An API's alternatives, token by token, as the student's token ids."""

from collections.abc import Sequence
from typing import Any

import torch

from retrainer.data.curate import Example
from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.recipes.job import Job

Told = dict[int, float]  # a place's alternatives: token id -> log probability; empty where none is told


def told(job: Job) -> list[list[Told]]:
    """For each training example, for each token of its completion, what the teacher told. An example whose answer the
    student's tokenizer cuts otherwise has nothing told. Raises CycleError where that is so of all."""
    ids = _by_text(job.tokenizer)
    found = [_of(example, row, ids, job.tokenizer) for example, row in zip(job.data.train, job.rows, strict=True)]
    if not any(any(one) for one in found):
        having = sum(bool(example.logprobs) for example in job.data.train)
        raise CycleError(
            f"recipe topk: of {len(found)} answers {having} came with log probabilities, and none is cut into the "
            f"tokens of {job.student.base}: let clients send logprobs: true and top_logprobs: 20, and take a student "
            "that shares the teacher's tokenizer; or the recipe lora, which learns from texts"
        )
    return found


def stack(some: Sequence[Sequence[Told]], device: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a batch's examples: which of its N completion tokens something is told of, [N]; and of those M their
    alternatives' ids and log probabilities [M, K], filled up with -inf."""
    places = [place for example in some for place in example]
    known = [place for place in places if place]
    width = max(map(len, known), default=0)
    ids = torch.zeros((len(known), width), dtype=torch.long)
    logprobs = torch.full((len(known), width), -torch.inf)
    for i, place in enumerate(known):
        ids[i, : len(place)] = torch.tensor(list(place))
        logprobs[i, : len(place)] = torch.tensor(list(place.values()))
    return torch.tensor([bool(p) for p in places], device=device), ids.to(device), logprobs.to(device)


def _of(example: Example, row: Row, ids: dict[str, int], tokenizer: Any) -> list[Told]:
    nothing: list[Told] = [{} for _ in row.completion]
    first = len(row.completion) - 1 - len(example.logprobs)  # of the thinking before it nothing is told
    tokens = [tokenizer.decode([token]) for token in row.completion[max(0, first) : -1]]
    if tokens != [one.token for one in example.logprobs] or (first and not example.reasoning):
        return nothing
    for place, one in zip(nothing[first:], example.logprobs, strict=False):  # of the end token an API tells nothing
        alternatives = {**one.top, one.token: one.logprob}
        place.update({ids[text]: logprob for text, logprob in alternatives.items() if text in ids})
    return nothing


def _by_text(tokenizer: Any) -> dict[str, int]:
    """Token ids by their text; those that spell part of a character have none."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return {text: i for i, text in reversed(list(enumerate(texts))) if i not in special and "�" not in text}
