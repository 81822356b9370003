"""Weights in 4 bits in AutoAWQ's "gemm" layout, which vLLM and the ONNX builder both read; and back to a dense model.

A linear layer of [out, in] weights, in groups of G along the input, is three tensors:

    qweight  int32 [in, out / 8]    levels 0 to 15, eight output channels an int32, in the order 0 2 4 6 1 3 5 7 from
                                    the lowest four bits on
    qzeros   int32 [in / G, out / 8]    each group's zero level, packed alike
    scales   float16 [in / G, out]      weight = (level - zero) scale

llm-compressor writes compressed-tensors' "pack-quantized" instead, which the ONNX builder refuses: weight_packed int32
[out, in / 8], eight inputs an int32 in plain order; weight_scale [out, in / G]; weight_zero_point int32
[out / 8, in / G], none where weights are symmetric (the zero level is 8 then).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.models.errors import ExportFailed
from exporters.models.hf_folder import Weights, read_config, write_folder
from exporters.models.whole import staged

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLAIN = (0, 1, 2, 3, 4, 5, 6, 7)
BITS, MIDDLE = 4, 8

_GEMM, _DENSE = "qweight", "weight_packed"  # what a quantized layer is known by, in either layout


def pack(levels: Any, order: Sequence[int] = ORDER) -> Any:
    """Levels [rows, columns], 0 to 15, as int32 [rows, columns / 8]: column 8 j + order[i] in the bits from 4 i on."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it

    eights = levels.to(torch.int64).reshape(levels.shape[0], -1, 8)[:, :, list(order)]
    words = (eights << (BITS * torch.arange(8))).sum(dim=-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack(packed: Any, order: Sequence[int] = ORDER) -> Any:
    """What `pack` packed: int32 [rows, columns]."""
    import torch  # noqa: PLC0415 - heavy

    nibbles = (packed[:, :, None] >> (BITS * torch.arange(8, dtype=torch.int32))) & 15
    levels = torch.empty_like(nibbles)
    levels[:, :, list(order)] = nibbles
    return levels.reshape(packed.shape[0], -1)


def repack(source: Path, out: Path, *, tokenizer: Path) -> None:
    """Write what llm-compressor wrote into `source` as a folder `out` in the layout above, atomically, with the
    tokenizer of the folder `tokenizer`. What isn't quantized becomes float16. Raises ExportFailed for other schemes
    than 4 bits in groups along the input."""
    config = read_config(source)
    group = _group_of(config, source)
    quantization = {"quant_method": "awq", "version": "gemm", "bits": BITS, "group_size": group, "zero_point": True}
    told = {"dtype": "float16", "quantization_config": {**quantization, "modules_to_not_convert": ["lm_head"]}}
    with staged(out) as staging:
        tensors = _gemm(Weights(source), group)
        write_folder(staging, tensors, config | told, source=source, tokenizer=tokenizer)


def dequantize(source: Path, out: Path) -> None:
    """Write the very weights of the folder `source`, in the layout above, as a dense Hugging Face folder `out` in
    float32, atomically: for runtimes and evaluations that don't read 4 bits. Raises ExportFailed."""
    config = read_config(source)
    group = group_size(source)
    del config["quantization_config"]
    with staged(out) as staging:
        tensors = _dense(Weights(source), group)
        write_folder(staging, tensors, config | {"dtype": "float32"}, source=source, tokenizer=source)


def group_size(folder: Path) -> int:
    """Of a folder in the layout above. Raises ExportFailed for any other."""
    found = read_config(folder).get("quantization_config", {})
    if (found.get("quant_method"), found.get("version"), found.get("bits")) != ("awq", "gemm", BITS):
        raise ExportFailed(f"{folder} is not in AWQ's gemm layout of 4 bits: {found or 'it is not quantized'}")
    return int(found["group_size"])


def _layers(weights: Weights, tensor: str) -> list[str]:
    """Names of the quantized layers: those with a tensor of that name."""
    return [name.removesuffix(f".{tensor}") for name in weights if name.endswith(f".{tensor}")]


def _others(weights: Weights, layers: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """All tensors that are not a quantized layer's levels, scales or zeros."""
    kept = set(layers)
    for name in weights:
        layer, _, tensor = name.rpartition(".")
        if layer not in kept or tensor == "bias":
            yield name, weights[name]


def _gemm(weights: Weights, group: int) -> Iterator[tuple[str, Any]]:
    import torch  # noqa: PLC0415 - heavy

    layers = _layers(weights, _DENSE)
    for name, tensor in _others(weights, layers):
        yield name, _half(name, tensor) if tensor.is_floating_point() else tensor
    for layer in layers:
        if f"{layer}.weight_g_idx" in weights:
            raise ExportFailed(f"{layer}: its groups are not neighbours (activation order), which the layout can't say")
        levels = unpack(weights[f"{layer}.{_DENSE}"], PLAIN)
        rows, columns = weights[f"{layer}.weight_shape"].tolist()
        if columns % group or rows % 8 or levels.shape != (rows, columns):
            raise ExportFailed(f"{layer}: [{rows}, {columns}] weights do not divide into eights and groups of {group}")
        scales = _half(layer, weights[f"{layer}.weight_scale"])
        zeros = torch.full(scales.T.shape, MIDDLE, dtype=torch.int32)
        if f"{layer}.weight_zero_point" in weights:
            zeros = unpack(weights[f"{layer}.weight_zero_point"].T.contiguous(), PLAIN)
        yield f"{layer}.qweight", pack(levels.T)
        yield f"{layer}.qzeros", pack(zeros)
        yield f"{layer}.scales", scales.T.contiguous()


def _dense(weights: Weights, group: int) -> Iterator[tuple[str, Any]]:
    import torch  # noqa: PLC0415 - heavy

    layers = _layers(weights, _GEMM)
    for name, tensor in _others(weights, layers):
        yield name, tensor.to(torch.float32) if tensor.is_floating_point() else tensor
    for layer in layers:
        levels, zeros = unpack(weights[f"{layer}.{_GEMM}"]), unpack(weights[f"{layer}.qzeros"])
        zeros, scales = (
            some.repeat_interleave(group, dim=0) for some in (zeros, weights[f"{layer}.scales"].to(torch.float32))
        )
        yield f"{layer}.weight", ((levels - zeros) * scales).T.contiguous()


def _half(name: str, tensor: Any) -> Any:
    import torch  # noqa: PLC0415 - heavy

    half = tensor.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise ExportFailed(f"{name}: holds values beyond float16, in which the layout keeps them")
    return half


def _group_of(config: Mapping[str, Any], folder: Path) -> int:
    """The group size of a pack-quantized folder."""
    found = config.get("quantization_config", {})
    schemes = [group["weights"] for group in found.get("config_groups", {}).values()]
    if found.get("format") != "pack-quantized" or len(schemes) != 1:
        raise ExportFailed(f"{folder} is not pack-quantized by one scheme: {found or 'it is not quantized'}")
    scheme = schemes[0]
    if (scheme["num_bits"], scheme["type"], scheme["strategy"]) != (BITS, "int", "group"):
        raise ExportFailed(f"{folder} is not in 4 bits by groups: {scheme}")
    return int(scheme["group_size"])
