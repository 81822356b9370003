"""An API's alternatives, token by token, as the student's token ids."""

from collections.abc import Sequence
from typing import Any

import torch

from retrainer.data.curate import Example
from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.job import Job

Told = dict[int, float]  # a place's alternatives: token id -> log probability; empty where none is told


def told(job: Job) -> list[list[Told]]:
    """For each of the job's rows, and then of those that it watches, for each token of its completion, what the teacher
    told. An example whose answer the student's tokenizer cuts otherwise has nothing told. Raises CycleError where that
    is so of all rows."""
    spelt = Spelling(job.tokenizer)
    examples = [*zip(job.learnt, job.rows, strict=True), *zip(job.watched, job.watched_rows, strict=True)]
    found = [spelt.told(example, row) for example, row in examples]
    if not any(any(one) for one in found[: len(job.rows)]):
        having = sum(bool(example.logprobs) for example in job.learnt)
        raise CycleError(
            f"recipe topk: of {len(job.rows)} answers {having} came with log probabilities, and none is cut into the "
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


class Spelling:
    """A tokenizer's tokens as an API spells them, each behind another token: by itself, SentencePiece's " hello" is
    decoded as "hello", as which there is a token, too."""

    def __init__(self, tokenizer: Any) -> None:
        before = tokenizer.encode("a", add_special_tokens=False)[-1]
        ids = [[before], *([before, i] for i in range(len(tokenizer)))]
        first, *texts = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
        self._texts = [text.removeprefix(first) for text in texts]
        special = set(tokenizer.all_special_ids)
        named = {i: text for i, text in enumerate(self._texts) if i not in special and "�" not in text}
        self._ids = {text: i for i, text in reversed(named.items())}  # those that spell part of a character have none

    def told(self, example: Example, row: Row) -> list[Told]:
        """What is told of each token of a row's completion; nothing where the API's tokens are others. Of the end token
        an API tells nothing."""
        places: list[Told] = [{} for _ in row.completion]
        first = len(row.completion) - 1 - len(example.logprobs)  # of the thinking before it nothing is told
        said, own = (
            [one.token for one in example.logprobs],
            [self._texts[i] for i in row.completion[max(0, first) : -1]],
        )
        if not said or not own or (first and not example.reasoning):
            return places
        space = " " if own[0] == f" {said[0]}" else ""  # SentencePiece puts one before a text
        if own != [space + said[0], *said[1:]]:
            return places
        for place, one, before in zip(places[first:], example.logprobs, [space, *[""] * len(said)], strict=False):
            alternatives = {**one.top, one.token: one.logprob}
            found = {self._ids.get(before + text): logprob for text, logprob in alternatives.items()}
            place.update({i: logprob for i, logprob in found.items() if i is not None})
        return places
