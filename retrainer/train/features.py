"""What happens inside a model while it reads a batch: hidden states, queries, keys and values, caught by hooks.

Hooks leave the forward pass as it is, so that a batch's shared prefix is still computed once.
"""

from collections import deque
from collections.abc import Sequence
from math import gcd
from typing import Any

import torch

from retrainer.errors import CycleError
from retrainer.train.batches import Batch

RELATIONS = ("q_proj", "k_proj", "v_proj")


class Taps:
    """The outputs of some modules of a model, by name, when it last read a batch."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self._seen: dict[str, deque[torch.Tensor]] = {name: deque(maxlen=2) for name in modules}
        for name, module in modules.items():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            self._seen[name].append(output[0] if isinstance(output, tuple) else output)

        return keep

    def of(self, name: str, batch: Batch) -> list[torch.Tensor]:
        """Of the prefix [1, P, d], where the batch has one, and of what follows it [B, S, d]."""
        return list(self._seen[name])[-2 if batch.prefix.numel() else -1 :]

    def whole(self, name: str, batch: Batch) -> torch.Tensor:
        """[B, P + S, d]."""
        return torch.cat([part.expand(len(batch.ids), -1, -1) for part in self.of(name, batch)], dim=1)


def decoder_layers(model: Any) -> Any:
    """A causal language model's decoder layers. Raises CycleError where they aren't where Llama's are."""
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or not hasattr(layers[0], "self_attn") or not hasattr(layers[0], "mlp"):
        raise CycleError(f"{type(model).__name__} has no decoder layers of attention and MLP that could be matched")
    return layers


def layer_taps(model: Any) -> Taps:
    """Catches the hidden states [B, S, d] that each layer puts out, as "0", "1", ..."""
    return Taps({str(i): layer for i, layer in enumerate(decoder_layers(model))})


def relation_taps(model: Any, layers: Sequence[int]) -> Taps:
    """Catches queries, keys and values [B, S, heads * d] of some layers, as "3.q_proj"; before they are rotated."""
    attentions = {i: decoder_layers(model)[i].self_attn for i in layers}
    if not all(hasattr(a, name) for a in attentions.values() for name in RELATIONS):
        raise CycleError(f"{type(model).__name__} has no separate query, key and value projections")
    return Taps({f"{i}.{name}": getattr(a, name) for i, a in attentions.items() for name in RELATIONS})


def layer_map(student: int, teacher: int) -> list[int]:
    """Which of the teacher's layers each of the student's is to match: evenly, the last the last (TinyBERT)."""
    return [max(0, round((i + 1) * teacher / student) - 1) for i in range(student)]


def mean_of_examples(batch: Batch, each: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean over each example's tokens, [examples]. `each`: as Taps.of, without d; each example has the prefix."""
    *prefix, rest = each
    real = batch.owners >= 0
    owners = batch.owners[real]
    counts = owners.bincount()
    sums = torch.zeros(len(counts), dtype=rest.dtype, device=rest.device).index_add(0, owners, rest[real])
    for one in prefix:
        sums, counts = sums + one.sum(), counts + one.numel()
    return sums / counts


def seen(batch: Batch) -> torch.Tensor:
    """[B, S, P + S]: which tokens each of those behind the prefix attends to: its example's own, up to itself."""
    own = (batch.owners[:, :, None] == batch.owners[:, None, :]).tril()
    return torch.cat([own.new_ones(*own.shape[:2], batch.prefix.numel()), own], dim=-1)


def projections(count: int, student: int, teacher: int) -> torch.nn.ModuleList:
    """A learned linear map of a student's width to a teacher's, for each of `count` layers; it begins as the identity
    (cut or padded), so that a student that was cut from its teacher begins at distance 0."""
    maps = torch.nn.ModuleList([torch.nn.Linear(student, teacher, bias=False) for _ in range(count)])
    for one in maps:
        torch.nn.init.eye_(one.weight)
    return maps


def relation_heads(student: int, teacher: int) -> int:
    """Into how many relation heads two widths can be cut: the most that divide both, at most 12. (MiniLMv2: 48.)"""
    return max(n for n in range(1, 13) if gcd(student, teacher) % n == 0)
