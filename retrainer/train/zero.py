"""Weights, gradients and moments that DeepSpeed shares out (ZeRO): its engine, and how a whole weight is read and put.

DeepSpeed keeps a part of each weight's fp32 copy and moments in flat tensors of its own; a checkpoint wants the whole,
by the weight's name, as one process has it. All processes call these functions together.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from retrainer.errors import CycleError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def gloo_alone() -> None:
    """Processes on one machine's CPUs talk over gloo: DeepSpeed would compile an extension of its own for them first,
    for minutes. Before the processes are joined."""
    import deepspeed  # noqa: PLC0415 - an extra

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def engine(objective: torch.nn.Module, optimizer: torch.optim.Optimizer, clip: float, processes: int) -> Any:
    """DeepSpeed's engine, by the configuration that accelerate was launched with. Raises CycleError."""
    import deepspeed  # noqa: PLC0415 - an extra
    from accelerate.utils import DeepSpeedPlugin  # noqa: PLC0415

    asked = settings(DeepSpeedPlugin().deepspeed_config, objective.parameters(), clip, processes)
    return deepspeed.initialize(model=objective, optimizer=optimizer, config=asked)[0]


def settings(given: Mapping[str, Any], weights: Iterable[torch.Tensor], clip: float, processes: int) -> dict[str, Any]:
    """DeepSpeed's configuration: what accelerate made of its own, with what is the training's. Raises CycleError where
    it asks for what isn't supported."""
    zero = given["zero_optimization"]
    if zero["stage"] not in (2, 3):
        raise CycleError(
            f"retrain.launch: zero_stage is {zero['stage']}; write 2 or 3, or take deploy/training/processes.yaml"
        )
    for key in ("offload_optimizer", "offload_param"):
        if (zero.get(key) or {}).get("device", "none") != "none":
            raise CycleError(f"retrain.launch: {key}_device must be none: nothing is offloaded")
    if not all(weight.is_floating_point() for weight in weights):
        raise CycleError("retrain.launch: DeepSpeed can't share an NF4 base; take deploy/training/fsdp.yaml")
    return {
        **given,
        "train_micro_batch_size_per_gpu": 1,  # batches are put together here
        "gradient_accumulation_steps": 1,
        "train_batch_size": processes,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
    }


def is_shared(weight: torch.Tensor) -> bool:
    """Whether DeepSpeed has a weight."""
    return hasattr(weight, "ds_id") or hasattr(weight, "_hp_mapping")


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight, put together."""
    from deepspeed.utils import safe_get_full_fp32_param  # noqa: PLC0415

    return safe_get_full_fp32_param(weight)


def shape(weight: torch.Tensor) -> torch.Size:
    """Of the whole weight."""
    return torch.Size(getattr(weight, "ds_shape", weight.shape))


def put(weight: torch.Tensor, value: torch.Tensor) -> None:
    """Give a weight a whole value."""
    import deepspeed  # noqa: PLC0415 - an extra
    from deepspeed.utils import safe_set_full_fp32_param  # noqa: PLC0415

    with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
        weight.copy_(value)
    safe_set_full_fp32_param(weight, value.to(weight.device))


def moments(optimizer: Any, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """A weight's moments of AdamW, put together, and its number of steps."""
    from deepspeed.utils import safe_get_full_optimizer_state  # noqa: PLC0415

    (step, *_) = (state["step"] for state in optimizer.optimizer.state.values())
    return {"step": step.clone()} | {key: safe_get_full_optimizer_state(weight, key) for key in _MOMENTS}


def put_moments(optimizer: Any, weight: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
    """Put back what `moments` said."""
    from deepspeed.utils import safe_set_full_optimizer_state  # noqa: PLC0415

    state, third = optimizer.optimizer.state, hasattr(weight, "ds_id")
    if not state:  # it is made by the first step
        for flat in optimizer.fp32_partitioned_groups_flat if third else optimizer.single_partition_of_fp32_groups:
            state[flat] = {"step": values["step"].clone(), **{key: torch.zeros_like(flat) for key in _MOMENTS}}
        if not third:
            optimizer._lazy_init_hp_params_optimizer_state()
    for key in _MOMENTS:
        safe_set_full_optimizer_state(weight, values[key].to(weight.device), key)
