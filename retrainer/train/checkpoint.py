"""Where a training stands, in one file that is replaced atomically: no pickle, so that nothing runs when it is read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from exporters.models import sync
from retrainer.errors import CycleError


def save(path: Path, model: Any, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
    """Write the trainable weights, the optimizer's moments, the random state, and `facts` (JSON)."""
    tensors = {"rng": torch.get_rng_state()}
    for name, weight in _trainable(model):
        tensors[f"weight:{name}"] = weight.detach()
        tensors |= {f"{key}:{name}": value for key, value in optimizer.state[weight].items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, {"facts": json.dumps(facts)})
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def load(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back what `save` wrote, and return its facts. Raises CycleError where the file doesn't fit the model."""
    try:
        with safe_open(path, framework="pt") as stored:
            facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
            by_name: dict[str, dict[str, torch.Tensor]] = {}
            for key in stored.keys():  # noqa: SIM118 - a safetensors file is no mapping
                kind, _, name = key.partition(":")
                by_name.setdefault(name, {})[kind] = stored.get_tensor(key)
        for name, weight in _trainable(model):
            values = by_name[name]
            weight.data.copy_(values.pop("weight"))
            # AdamW keeps its step count on the CPU, whatever the device of the weights.
            moments = {k: v if k == "step" else v.to(weight.device) for k, v in values.items()}
            optimizer.state[weight] = moments
        torch.set_rng_state(by_name[""]["rng"])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise CycleError(f"{path} is no checkpoint of this training ({error}); remove it to train anew") from error
    return facts


def _trainable(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
