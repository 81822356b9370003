"""Batches of examples, and what a causal model predicts for their completions; for training and for checking drafts.

All examples of a batch begin with the same tokens (the system prompt, the template). Their keys and values are
computed once a batch and shared, which changes nothing but the time: on the sample task 48 of 77 tokens are shared.
"""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from transformers import DynamicCache

from retrainer.data.render import Row, common_prefix

# Examples are sorted by length inside windows of this many batches: padding falls from about 25% to 3%, while a batch
# remains a random draw.
WINDOW = 8
IGNORED = -100


class Batch(msgspec.Struct, frozen=True):
    """`prefix` [1, P]: the tokens that all examples begin with. `ids`, `labels` [B, S]: what follows it, right-padded;
    a label is the token to predict at its place, or IGNORED. `weights` [N]: of each token to predict, its example's."""

    prefix: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return int(self.prefix.numel() + self.ids.numel())


def order(rows: Sequence[Row], *, size: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch: the examples' indices, `size` a batch. The same arguments give the same batches."""
    draw = random.Random(f"{seed}:{epoch}")  # noqa: S311 - a shuffle, not a secret
    indices = list(range(len(rows)))
    draw.shuffle(indices)
    batches = []
    for start in range(0, len(indices), size * WINDOW):
        window = sorted(indices[start : start + size * WINDOW], key=lambda i: len(rows[i].prompt + rows[i].completion))
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    draw.shuffle(batches)
    return batches


def collate(rows: Sequence[Row], *, pad: int, device: Any) -> Batch:
    """One batch on `device`."""
    shared = common_prefix([row.prompt for row in rows])
    inputs = [(row.prompt + row.completion)[shared:-1] for row in rows]
    width = max(map(len, inputs))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for i, (row, tokens) in enumerate(zip(rows, inputs, strict=True)):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        first = len(row.prompt) - shared - 1  # the prompt's last token predicts the first of the completion
        labels[i, first : first + len(row.completion)] = torch.tensor(row.completion)
    prefix = torch.tensor([rows[0].prompt[:shared]], dtype=torch.long)
    weights = torch.tensor([row.weight for row in rows]).repeat_interleave((labels != IGNORED).sum(dim=1))
    return Batch(prefix.to(device), ids.to(device), labels.to(device), weights.to(device))


def completion_logits(causal: Any, batch: Batch) -> torch.Tensor:
    """The logits [N, vocabulary] where a completion token is predicted, in the order of `labels[labels != IGNORED]`.

    Over the prompt none are computed: the head is a fifth of a small model. Gradients flow through the prefix too.
    """
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    cache = DynamicCache()
    if batch.prefix.numel():
        body(input_ids=batch.prefix, cache=cache, use_cache=True)
        cache.batch_repeat_interleave(batch.ids.shape[0])  # [1, heads, P, d] -> [B, heads, P, d]
    # Padding is at the right, where a causal model's real tokens never look: no mask is needed.
    hidden = body(input_ids=batch.ids, cache=cache, use_cache=True).last_hidden_state  # [B, S, d]
    logits: torch.Tensor = head(hidden[batch.labels != IGNORED])
    return logits
