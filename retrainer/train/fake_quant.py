"""Weights rounded in the forward pass as the exporter will round them, with a straight-through gradient.

The grid (scale and zero point of each group of 32 weights along the input) is computed by the exporter's own quantizer
from the weights that the training starts with, and stays: what is trained lies on it, and exporting finds it again.

    int8    symmetric: scale = m / -128, m the weight of the greatest magnitude, with its sign (ONNX Runtime's default)
    int4    k-quant: a searched scale and minimum; 8 bits where `k_quant_mixed` takes 8
"""

from typing import Any, Literal

import torch
from torch.nn.utils import parametrize

from retrainer.train.features import decoder_layers

GROUP = 32


class Rounded(torch.nn.Module):  # type: ignore[misc]
    """w -> scale (clamp(round(w / scale) + zero) - zero), its gradient that of w. `scale`, `zero` [groups, 1]."""

    def __init__(self, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("zero", zero, persistent=False)
        self._most = 2**bits - 1

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight` [out, in], in a multiple of GROUP."""
        scale, zero = self.get_buffer("scale"), self.get_buffer("zero")
        groups = weight.detach().reshape(-1, GROUP)
        levels = (groups / scale + zero).round().clamp(0, self._most)
        on_grid = ((levels - zero) * scale).reshape(weight.shape)
        return weight + (on_grid - weight).detach()


def fake_quantize(model: Any, quantization: Literal["int8", "int4"]) -> None:
    """Round every linear layer of the decoder from here on, until `bake`. The head, which both exports keep in 8 bits,
    and layers whose input is no multiple of GROUP stay exact."""
    layers = decoder_layers(model)
    for number, layer in enumerate(layers):
        for name, linear in layer.named_modules():
            if isinstance(linear, torch.nn.Linear) and linear.in_features % GROUP == 0:
                if quantization == "int8":
                    rounded = _symmetric(linear.weight.detach())
                else:
                    upgraded = _upgraded(number, len(layers)) and name.endswith(
                        ("q_proj", "k_proj", "v_proj", "down_proj")
                    )
                    rounded = _k_quant(linear.weight.detach(), 8 if upgraded else 4)
                parametrize.register_parametrization(linear, "weight", rounded)


def bake(model: Any) -> None:
    """Leave the rounded weights in place of the exact ones."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")


def _symmetric(weight: torch.Tensor) -> Rounded:
    groups = weight.reshape(-1, GROUP)
    greatest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    scale = torch.where(greatest == 0, torch.ones_like(greatest), greatest / -128)
    return Rounded(scale, torch.full_like(scale, 128.0), bits=8)


def _k_quant(weight: torch.Tensor, bits: int) -> Rounded:
    from onnxruntime.quantization.neural_compressor.weight_only import (  # noqa: PLC0415 - heavy
        quant_tensor_k_quant_cpu,
    )

    _, scale, zero = quant_tensor_k_quant_cpu(weight.cpu().numpy(), bits, GROUP)
    like = {"dtype": weight.dtype, "device": weight.device}
    return Rounded(torch.tensor(scale, **like), torch.tensor(zero, **like), bits)


def _upgraded(layer: int, layers: int) -> bool:
    """Which layers `k_quant_mixed` gives 8 bits for queries, keys, values and the MLP's way down (llama.cpp's rule)."""
    return layer < layers / 8 or layer >= 7 * layers / 8 or (layer - round(layers / 8)) % 3 == 2
