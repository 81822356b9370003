"""How much memory and time a training will take, before it is begun.

Memory of a training, in bytes, of N weights of which L are in the linear layers that QLoRA quantizes, T trainable:

    weights      lora, full: 4 N (fp32).  qlora: 4.127 L / 8 (4 bits, and 0.127 for the doubly quantized constants,
                 Dettmers et al. 2023) + 4 (N - L), on CUDA 2 (N - L) (bf16)
    adapters     4 T (fp32), full: none
    gradients    4 T
    optimizer    8 T (AdamW's two moments)
    activations  4 t n (k h + 3 i + 2 q + 2 v) + 12 c V, of a part of t tokens, c of them completion tokens, on n layers
                 of width h, MLP width i, q and v the widths of queries and of keys and values, vocabulary V. k = 8: the
                 layer's input, two norms (each its input in fp32 and its result), and what the two residual sums and
                 the projections keep. LoRA's and full's are the same: the gradient goes through every layer. With
                 gradient checkpointing 4 t (n h + 8 h + 3 i + 2 q + 2 v): each layer's input, and one layer whole.
                 What autograd really keeps is 0.92 to 1.04 of that on Llama, Qwen3 and Phi-3, and 1.45 on Gemma 2,
                 whose attention is computed eagerly, with soft caps and two more norms

A part is one example at the least: a batch that doesn't fit is taken in parts, so `least` is with one example at a time
and `whole` with the whole batch. What training leaves is merged in fp32 in the main memory: 8 N (the base, and a copy
of its matrices by which the merge is checked); full fine-tuning's is only copied.

Time: 4 N floating-point operations a token (2 forward, 2 backward) for adapters, 6 N for all weights (Kaplan et al.
2020), 2 N more with gradient checkpointing, at half the rate that a matrix product reaches on this machine. True to a
factor of about two: it is for telling minutes from days.
"""

import os
import time
from typing import Any

import msgspec

from retrainer.train.sequence import Method

_NF4_BITS = 4.127
_KEPT = 8
_OF_PEAK = 0.5


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model decides its memory. `weights`: N; `quantizable`: L; `trainable`: T; widths as in the formula."""

    weights: int
    quantizable: int
    trainable: int
    layers: int
    hidden: int
    mlp: int
    queries: int
    values: int
    vocabulary: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained on. `prompt`, `completion`: tokens of a usual example."""

    examples: int = 5000
    prompt: int = 250
    completion: int = 50
    batch_size: int = 16
    epochs: float = 1.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by what takes them, and seconds. `merging`: in main memory, after training."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations_least: int
    activations_whole: int
    merging: int
    seconds: float

    @property
    def checkpoint(self) -> int:
        """On disk: what learns, and its moments; two of them while one is replaced."""
        return self.gradients + self.optimizer

    @property
    def least(self) -> int:
        """With one example at a time."""
        return self.weights + self.adapters + self.gradients + self.optimizer + self.activations_least

    @property
    def whole(self) -> int:
        """With the whole batch at once."""
        return self.least - self.activations_least + self.activations_whole


def estimate(shape: Shape, load: Load, method: Method, *, checkpointing: bool, cuda: bool, flops: float) -> Estimate:
    """See the formula above. `flops`: floating-point operations a second of a matrix product."""
    if method == "qlora":
        rest = (2 if cuda else 4) * (shape.weights - shape.quantizable)
        weights = round(_NF4_BITS / 8 * shape.quantizable) + rest
    else:
        weights = 4 * shape.weights
    tokens = load.prompt + load.completion
    work = ((6 if method == "full" else 4) + 2 * checkpointing) * shape.weights * tokens * load.examples * load.epochs
    return Estimate(
        weights=weights,
        adapters=0 if method == "full" else 4 * shape.trainable,
        gradients=4 * shape.trainable,
        optimizer=8 * shape.trainable,
        activations_least=activations(shape, 1, load, checkpointing=checkpointing),
        activations_whole=activations(shape, load.batch_size, load, checkpointing=checkpointing),
        merging=4 * shape.weights if method == "full" else 8 * shape.weights,
        seconds=work / (flops * _OF_PEAK),
    )


def activations(shape: Shape, examples: int, load: Load, *, checkpointing: bool) -> int:
    """Bytes that a pass over some examples keeps for the way back."""
    tokens = examples * (load.prompt + load.completion)
    layer = _KEPT * shape.hidden + 3 * shape.mlp + 2 * shape.queries + 2 * shape.values
    kept = shape.layers * shape.hidden + layer if checkpointing else shape.layers * layer
    return 4 * tokens * kept + 12 * examples * load.completion * shape.vocabulary


def memory() -> tuple[int, int]:
    """This machine's memory in bytes: where models are trained (the GPU's where there is one), and the main one's."""
    import torch  # noqa: PLC0415 - heavy

    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else main), main


def speed() -> float:
    """Floating-point operations a second of a matrix product on this machine, as training computes it; takes about a
    second."""
    import torch  # noqa: PLC0415 - heavy

    from retrainer.train.loop import device  # noqa: PLC0415

    where = device()
    size, dtype = (8192, torch.bfloat16) if where.type == "cuda" else (1024, torch.float32)
    one: Any = torch.randn(size, size, device=where, dtype=dtype)
    best = 0.0
    for _ in range(5):
        began = time.monotonic()
        (one @ one).sum().item()
        best = max(best, 2.0 * size**3 / (time.monotonic() - began))
    return best
