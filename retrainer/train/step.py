"""One optimizer step on one batch: in as many parts as fit into memory, and over as many processes as there are.

Losses are sums, which the whole batch's units divide, so that the gradients of parts add up to the whole batch's;
processes that `accelerate launch` started each take a share of a batch the same way. With FSDP (`fully_shard`) or
DeepSpeed (ZeRO) they also share weights, gradients and moments: each layer is gathered while it computes.
"""

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils import parse_flag_from_env
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from retrainer.errors import OutOfMemory
from retrainer.train import zero

# Of examples, by their numbers: the sum of their losses, each times its example's weight; and the tokens read.
Loss = Callable[[list[int]], tuple[torch.Tensor, int]]
# How much an example adds to what a step's loss is a mean over: its completion tokens, or 1 where answers are counted.
# Weights (1 in the data set's mean) don't count here: a batch of heavy examples moves the model more than one of light.
Units = Callable[[int], float]
T = TypeVar("T")


def want_of_memory(error: RuntimeError) -> bool:
    """Whether it says that something didn't fit into memory, a GPU's or the main one."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


class Stepper:
    """`parts`: pieces of a batch, doubled when one doesn't fit. `main`: whether this process writes files."""

    def __init__(
        self,
        model: Any,
        loss_of: Loss,
        units_of: Units,
        learning_rate: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self._loss_of, self._units_of, self._clip = loss_of, units_of, clip
        self._where = next(model.parameters()).device
        several = dist.is_available() and dist.is_initialized()
        self.processes = dist.get_world_size() if several else 1
        self._rank = dist.get_rank() if several else 0
        self.main = self._rank == 0
        self.parts = 1
        self._objective = _Objective(model)
        fsdp, deepspeed = (
            self.processes > 1 and parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED")
        )
        self._sharded = fsdp or deepspeed
        if fsdp:
            _shard(self._objective)
        self._weights = [w for w in model.parameters() if w.requires_grad]
        self.optimizer: Any = torch.optim.AdamW(self._weights, lr=learning_rate, weight_decay=weight_decay)
        self._engine = zero.engine(self._objective, self.optimizer, clip, self.processes) if deepspeed else None
        if self._engine is not None:
            self.optimizer = self._engine.optimizer
        model.train()

    def step(self, numbers: list[int], learning_rate: float) -> tuple[float, int]:
        """One step: the batch's loss before it (nan where it or its gradient is no number, and nothing moves but what
        DeepSpeed has), and the tokens that went through the model. Raises OutOfMemory where one example doesn't
        fit."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss, tokens = self._fitting(self._in_parts, numbers)
        if self._engine is not None:
            self._engine.step()  # clips, and sets the gradients to none
            return (loss if math.isfinite(float(self._engine.get_global_grad_norm())) else math.nan), tokens
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self._clip)
        finite = math.isfinite(loss) and math.isfinite(_whole(norm).item())
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return (loss if finite else math.nan), tokens

    def mean_loss(self, loss_of: Loss, batches: Sequence[list[int]], units_of: Units) -> float:
        """A loss over all of some batches, without a gradient; every process computes all of it. The model stays in its
        training mode: bitsandbytes, once it has seen another, computes wrong gradients on a CPU (0.50.2). Raises
        OutOfMemory as `step`."""

        def summed(numbers: list[int]) -> float:
            pieces = min(self.parts * self.processes, len(numbers))  # none larger than a step's
            return float(sum(self._objective(loss_of, numbers[start::pieces])[0].item() for start in range(pieces)))

        with torch.no_grad():
            total = sum(self._fitting(summed, numbers) for numbers in batches)
        if isinstance(self._objective, FSDPModule):
            self._objective.reshard()  # as a backward pass does; until then moments aren't found by the weights
        return float(total / sum(units_of(number) for numbers in batches for number in numbers))

    def agree(self, *flags: bool) -> list[bool]:
        """What any process says, all do: they must stop and save at the same step."""
        if self.processes == 1:
            return list(flags)
        said = torch.tensor(flags, dtype=torch.int32, device=self._where)
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in said.tolist()]

    def _fitting(self, work: Callable[[list[int]], T], numbers: list[int]) -> T:
        """What `work` comes to of these examples, done anew in twice the parts as long as it doesn't fit."""
        while True:
            try:
                return work(numbers)
            except RuntimeError as error:
                if not want_of_memory(error):
                    raise
                if self.parts >= len(numbers) or self.processes > 1:
                    raise OutOfMemory(
                        f"{math.ceil(len(numbers) / self.parts / self.processes)} example(s) don't fit into memory; "
                        "lower retrain.max_tokens or retrain.batch_size, or set retrain.gradient_checkpointing"
                    ) from error
            self.parts *= 2  # outside of the handler: its traceback holds the tensors that are too many
            self.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            clear_device_cache()

    def _in_parts(self, numbers: list[int]) -> tuple[float, int]:
        whole = sum(map(self._units_of, numbers))
        own = numbers[self._rank :: self.processes]
        total = torch.zeros(2, dtype=torch.float64, device=self._where)  # loss, tokens
        for part in [own[start :: self.parts] for start in range(self.parts)] if own else [numbers[:1]]:
            if not part:
                continue
            summed, tokens = (self._engine or self._objective)(self._loss_of, part)
            # Without an example of its own a process still takes part in what all compute together.
            loss = summed / whole * bool(own)
            shared = loss * (self.processes if self._sharded else 1)  # FSDP and DeepSpeed average over the processes
            if self._engine is None:
                shared.backward()
            else:
                self._engine.backward(shared)
            total += torch.tensor([loss.item(), tokens * bool(own)], dtype=torch.float64, device=self._where)
        if self.processes > 1:
            dist.all_reduce(total)
            for weight in [] if self._sharded else self._weights:
                if weight.grad is not None:
                    dist.all_reduce(weight.grad)
        return float(total[0]), int(total[1])


class _Objective(torch.nn.Module):  # type: ignore[misc]  # torch is not analysed
    """A loss as a module around the model, since FSDP gathers weights where a module is called."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss_of: Loss, numbers: list[int]) -> tuple[torch.Tensor, int]:
        device = next(self.model.parameters()).device.type
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device == "cuda"):
            return loss_of(numbers)


def _shard(objective: _Objective) -> None:
    """Each of the blocks that must stay whole (transformers' `_no_split_modules`) is gathered by itself."""
    blocks = next(set(m._no_split_modules or ()) for m in objective.modules() if hasattr(m, "_no_split_modules"))
    for module in objective.modules():
        if type(module).__name__ in blocks:
            fully_shard(module)
    fully_shard(objective)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
