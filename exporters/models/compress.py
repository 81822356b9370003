"""The process that quantizes by llm-compressor: an order (`exporters.models.four_bits.Order`, JSON) on standard input.

On the CPU or on CUDA, in float32 on both, so that wherever they are made the weights are the same to rounding.
"""

import sys
from typing import Any

import msgspec
import torch
from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.pipelines.cache import IntermediatesCache
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from exporters.models.four_bits import Order
from exporters.models.to_awq import modifiers as awq
from exporters.models.to_gptq import modifiers as gptq

_RECIPES = {"awq": awq, "gptq": gptq}


def main(order: Order) -> None:
    """Write the quantized model, as compressed-tensors, into the order's folder."""
    if not torch.accelerator.is_available():  # AWQ pins its cache all the same, which fails on a CPU alone
        IntermediatesCache.pin_memory = lambda *_, **__: None  # type: ignore[method-assign]
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": order.group}
    scheme: dict[str, Any] = {
        "config_groups": {"all": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    model = AutoModelForCausalLM.from_pretrained(order.model, dtype=torch.float32)
    batches: Any = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in order.samples
    ]
    oneshot(
        model=model,
        dataset=DataLoader(batches, batch_size=None),
        recipe=_RECIPES[order.method](scheme),
        num_calibration_samples=len(batches),
    )
    model.save_pretrained(order.out, save_compressed=True)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
