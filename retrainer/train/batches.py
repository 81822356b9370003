"""Batches of examples, and what a causal model predicts for their completions; for training and for checking drafts.

All examples of a batch begin with the same tokens (the system prompt, the template). Their keys and values are
computed once a batch and shared, which changes nothing but the time: on the sample task 48 of 77 tokens are shared.

Or they are packed: several in one row, each with positions of its own and seeing itself alone (a block-diagonal mask,
which transformers makes from positions that begin anew). Nothing is padded then, and nothing shared: packing pays where
lengths differ and little is shared, and it is what gradient checkpointing goes with, since that keeps no cache.
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
    a label is the token to predict at its place, or IGNORED. `owners` [B, S]: whose token it is, by the example's place
    among those given; -1: padding. `weights`, `settled` [N]: of each token to predict, its example's, see Row.
    `positions` [B, S]: of packed examples, each from 0."""

    prefix: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    owners: torch.Tensor
    weights: torch.Tensor
    settled: torch.Tensor
    positions: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return int(self.prefix.numel() + self.ids.numel())

    @property
    def owner(self) -> torch.Tensor:
        """[N]: of each token to predict, whose it is."""
        return self.owners[self.labels != IGNORED]

    def summed(self, each: torch.Tensor) -> torch.Tensor:
        """What there is of each token to predict, [N], added up for each example, [examples]."""
        size = int(self.owners.max()) + 1
        return torch.zeros(size, dtype=each.dtype, device=each.device).index_add(0, self.owner, each)


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


def collate(rows: Sequence[Row], *, pad: int, device: Any, width: int | None = None) -> Batch:
    """One batch on `device`; packed, where a row's `width` is given."""
    if width is not None:
        return collate_packed(rows, pad=pad, width=width, device=device)
    shared = common_prefix([row.prompt for row in rows])
    inputs = [(row.prompt + row.completion)[shared:-1] for row in rows]
    width = max(map(len, inputs))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    owners = torch.full((len(rows), width), -1, dtype=torch.long)
    for i, (row, tokens) in enumerate(zip(rows, inputs, strict=True)):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        owners[i, : len(tokens)] = i
        first = len(row.prompt) - shared - 1  # the prompt's last token predicts the first of the completion
        labels[i, first : first + len(row.completion)] = torch.tensor(row.completion)
    prefix = torch.tensor([rows[0].prompt[:shared]], dtype=torch.long)
    return Batch(*(tensor.to(device) for tensor in (prefix, ids, labels, owners, *_of_tokens(rows, owners, labels))))


def _of_tokens(rows: Sequence[Row], owners: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and what is settled, see Batch."""
    whose = owners[labels != IGNORED]
    return torch.tensor([row.weight for row in rows])[whose], torch.tensor([row.settled for row in rows])[whose]


def collate_packed(rows: Sequence[Row], *, pad: int, width: int, device: Any) -> Batch:
    """One batch on `device`, its examples in as few rows of `width` tokens as first-fit-decreasing finds (at most 11/9
    of the fewest, Johnson 1973)."""
    bins: list[list[int]] = []
    room: list[int] = []
    sizes = [len(row.prompt) + len(row.completion) - 1 for row in rows]  # the last token is only predicted
    for number in sorted(range(len(rows)), key=lambda n: sizes[n], reverse=True):
        place = next((i for i, left in enumerate(room) if left >= sizes[number]), None)
        if place is None:
            bins.append([])
            room.append(max(width, sizes[number]))
            place = len(bins) - 1
        bins[place].append(number)
        room[place] -= sizes[number]
    longest = max(sum(sizes[number] for number in some) for some in bins)
    ids = torch.full((len(bins), longest), pad, dtype=torch.long)
    labels = torch.full((len(bins), longest), IGNORED, dtype=torch.long)
    owners = torch.full((len(bins), longest), -1, dtype=torch.long)
    positions = torch.arange(longest).repeat(len(bins), 1)
    for i, some in enumerate(bins):
        at = 0
        for number in some:
            row, end = rows[number], at + sizes[number]
            ids[i, at:end] = torch.tensor((row.prompt + row.completion)[:-1])
            owners[i, at:end] = number
            labels[i, end - len(row.completion) : end] = torch.tensor(row.completion)
            positions[i, at:] -= positions[i, at].item()
            at = end
        if at < longest:
            positions[i, at:] -= positions[i, at].item()  # padding sees itself alone
    prefix = torch.zeros((1, 0), dtype=torch.long)
    made = (prefix, ids, labels, owners, *_of_tokens(rows, owners, labels), positions)
    return Batch(*(tensor.to(device) for tensor in made))


def completion_logits(causal: Any, batch: Batch) -> torch.Tensor:
    """The logits [N, vocabulary] where a completion token is predicted, in the order of `labels[labels != IGNORED]`.

    Over the prompt none are computed: the head is a fifth of a small model. Gradients flow through the prefix too.
    """
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    if batch.positions is not None:
        output = body(input_ids=batch.ids, position_ids=batch.positions, use_cache=False)
    elif not batch.prefix.numel():
        output = body(input_ids=batch.ids, use_cache=False)
    else:
        cache = DynamicCache()
        body(input_ids=batch.prefix, cache=cache, use_cache=True)
        cache.batch_repeat_interleave(batch.ids.shape[0])  # [1, heads, P, d] -> [B, heads, P, d]
        # Padding is at the right, where a causal model's real tokens never look: no mask is needed.
        output = body(input_ids=batch.ids, cache=cache, use_cache=True)
    return _scaled(causal.config, head(output.last_hidden_state[batch.labels != IGNORED]))


def own_logits(causal: Any) -> bool:
    """Whether a model's own logits are what `completion_logits` takes for them, of a few of its tokens."""
    ids = torch.arange(1, 9, device=causal.get_input_embeddings().weight.device)[None]
    heads: list[torch.Tensor] = []
    hook = causal.get_output_embeddings().register_forward_hook(lambda *seen: heads.append(seen[-1]))
    mode = causal.training
    causal.train()  # on some CPUs bitsandbytes repacks its weights in the other mode, and computes wrong gradients then
    try:
        with torch.no_grad():
            given = causal(input_ids=ids, use_cache=False).logits
    finally:
        causal.train(mode)
        hook.remove()
    made = _scaled(causal.config, heads[-1])
    return bool(torch.allclose(made.float(), given.float(), rtol=1e-2, atol=1e-2 * float(given.float().std())))


def _scaled(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """Logits as the model itself has them."""
    if divisor := getattr(config, "logits_scaling", None):  # Granite's
        logits = logits / divisor
    for name in ("logit_scale", "lm_head_multiplier"):  # Cohere's, Falcon-H1's
        if isinstance(factor := getattr(config, name, None), float | int):
            logits = logits * factor
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2's
    return logits if cap is None else cap * torch.tanh(logits / cap)
