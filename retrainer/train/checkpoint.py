"""Where a training stands, in one file that is replaced atomically: no pickle, so that nothing runs when it is read.

Of a model that several processes share (FSDP, DeepSpeed) the whole tensors are written, by the first process, and each
reads its own part: a checkpoint of two processes goes on in one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from exporters.models import sync
from retrainer.errors import CycleError
from retrainer.train import zero


def save(path: Path, model: Any, optimizer: torch.optim.Optimizer, facts: dict[str, Any], *, main: bool = True) -> None:
    """Write the trainable weights, the optimizer's moments, the random states (the CPU's, and each CUDA device's), and
    `facts` (JSON)."""
    tensors = {"rng": torch.get_rng_state()}
    tensors |= {f"rng:cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    for name, weight in _trainable(model):
        tensors[f"weight:{name}"] = _whole(weight)
        tensors |= {f"{key}:{name}": _whole(value) for key, value in _moments(optimizer, weight).items()}
    if main:
        _write(path, tensors, facts)


def save_weights(path: Path, model: Any, *, main: bool = True) -> None:
    """Write the trainable weights alone."""
    tensors = {f"weight:{name}": _whole(weight) for name, weight in _trainable(model)}
    if main:
        _write(path, tensors, {})


def load(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back what `save` wrote, and return its facts. Raises CycleError where the file doesn't fit the model."""
    facts, by_name = _read(path)
    try:
        for name, weight in _trainable(model):
            values = by_name[name]
            _put(weight, values.pop("weight"))
            if zero.is_shared(weight):
                zero.put_moments(optimizer, weight, values)
                continue
            # AdamW keeps its step count on the CPU, whatever the device of the weights.
            optimizer.state[weight] = {k: v if k == "step" else _like(v, weight) for k, v in values.items()}
        torch.set_rng_state(by_name[""]["rng"])
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in by_name:  # one that was written with fewer devices goes on, too
                torch.cuda.set_rng_state(by_name[f"cuda{i}"]["rng"], i)
    except (KeyError, RuntimeError) as error:
        raise _foreign(path, error) from error
    return facts


def load_weights(path: Path, model: Any) -> None:
    """Put back what `save_weights` wrote. Raises CycleError."""
    _, by_name = _read(path)
    try:
        for name, weight in _trainable(model):
            _put(weight, by_name[name]["weight"])
    except (KeyError, RuntimeError) as error:
        raise _foreign(path, error) from error


def _write(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, {"facts": json.dumps(facts)})
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as stored:
            facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
            for key in stored.keys():  # noqa: SIM118 - a safetensors file is no mapping
                kind, _, name = key.partition(":")
                by_name.setdefault(name, {})[kind] = stored.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise _foreign(path, error) from error
    return facts, by_name


def _foreign(path: Path, error: Exception) -> CycleError:
    return CycleError(f"{path} is no checkpoint of this training ({error}); remove it to train anew")


def _trainable(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _moments(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return zero.moments(optimizer, weight) if zero.is_shared(weight) else optimizer.state[weight]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    if zero.is_shared(tensor):
        return zero.whole(tensor)
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """On the device of `weight`, and of its parts this process's own."""
    if isinstance(weight, DTensor):
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device)


def _put(weight: torch.Tensor, value: torch.Tensor) -> None:
    shape = zero.shape(weight)
    if shape != value.shape:
        raise RuntimeError(f"a weight of {tuple(shape)}, not {tuple(value.shape)}")
    with torch.no_grad():
        if zero.is_shared(weight):
            zero.put(weight, value)
        else:
            weight.copy_(_like(value, weight))
