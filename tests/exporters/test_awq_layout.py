"""Four bits in AWQ's gemm layout: by hand, by property, and as llm-compressor packs them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from exporters.models import ExportFailed, hf_folder
from exporters.models.awq_layout import ORDER, PLAIN, dequantize, group_size, pack, repack, unpack

SCHEME = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False}


def compressed(folder: Path, tensors: dict[str, torch.Tensor], **scheme: Any) -> Path:
    """A folder as llm-compressor writes it, of one layer `model.layers.0.mlp.up_proj`."""
    folder.mkdir()
    layer = "model.layers.0.mlp.up_proj"
    named = {name if "." in name else f"{layer}.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    groups = {"group_0": {"targets": ["Linear"], "weights": SCHEME | scheme}}
    quantization = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    config = {"model_type": "llama", "dtype": "float32", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_eight_levels_are_packed_in_the_published_order() -> None:
    levels = torch.arange(8)[None]
    assert pack(levels).tolist() == [[0x75316420]]
    assert pack(levels, PLAIN).tolist() == [[0x76543210]]
    assert pack(torch.full((1, 16), 15)).tolist() == [[-1, -1]]
    assert unpack(torch.tensor([[0x75316420]], dtype=torch.int32)).tolist() == [list(range(8))]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_what_is_packed_is_unpacked(data: st.DataObject) -> None:
    rows, eights = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    drawn = data.draw(st.lists(st.integers(0, 15), min_size=rows * eights * 8, max_size=rows * eights * 8))
    levels = torch.tensor(drawn, dtype=torch.int32).reshape(rows, -1)
    for order in (ORDER, PLAIN):
        assert torch.equal(unpack(pack(levels, order), order), levels)


def test_plain_order_is_compressed_tensors_own() -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    signed = torch.randint(-8, 8, (16, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pack(signed + 8, PLAIN), pack_to_int32(signed, 4))
    assert torch.equal(pack((signed + 8).T, PLAIN).T, pack_to_int32(signed, 4, packed_dim=0))


def test_a_layer_by_hand(tmp_path: Path) -> None:
    """8 outputs, 64 inputs in two groups: the level of input i at output o is (i + o) mod 16."""
    levels = (torch.arange(64)[None] + torch.arange(8)[:, None]) % 16
    zeros = torch.stack([torch.arange(8), torch.full((8,), 15)], dim=1)  # [out, groups]
    scales = torch.stack([torch.full((8,), 0.5), torch.arange(8) / 4], dim=1)
    source = compressed(
        tmp_path / "source",
        {
            "weight_packed": pack(levels, PLAIN),
            "weight_scale": scales,
            "weight_zero_point": pack(zeros.T, PLAIN).T.contiguous(),
            "weight_shape": torch.tensor([8, 64]),
            "bias": torch.ones(8),
            "model.norm.weight": torch.full((64,), 0.25),
        },
    )
    repack(source, tmp_path / "gemm", tokenizer=source)
    found = load_file(tmp_path / "gemm" / "model.safetensors")
    layer = "model.layers.0.mlp.up_proj"
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in found.items()} == {
        f"{layer}.qweight": ("torch.int32", (64, 1)),
        f"{layer}.qzeros": ("torch.int32", (2, 1)),
        f"{layer}.scales": ("torch.float16", (2, 8)),
        f"{layer}.bias": ("torch.float16", (8,)),
        "model.norm.weight": ("torch.float16", (64,)),
    }
    assert found[f"{layer}.qweight"][0].item() == 0x75316420  # input 0: levels 0 to 7
    assert found[f"{layer}.qzeros"].tolist() == [[0x75316420], [-1]]
    config = json.loads((tmp_path / "gemm" / "config.json").read_text())
    assert config["quantization_config"]["group_size"] == group_size(tmp_path / "gemm") == 32
    assert (tmp_path / "gemm" / "tokenizer.json").is_file()

    dequantize(tmp_path / "gemm", tmp_path / "dense")
    dense = load_file(tmp_path / "dense" / "model.safetensors")
    assert set(dense) == {f"{layer}.weight", f"{layer}.bias", "model.norm.weight"}
    weight = dense[f"{layer}.weight"]
    assert weight.dtype == torch.float32
    assert weight.tolist() == ((levels - zeros.repeat_interleave(32, 1)) * scales.repeat_interleave(32, 1)).tolist()
    assert weight[3, 2].item() == (5 - 3) * 0.5
    assert weight[5, 40].item() == ((40 + 5) % 16 - 15) * 5 / 4
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert (config["dtype"], "quantization_config" in config) == ("float32", False)


def test_symmetric_weights_have_their_zero_in_the_middle(tmp_path: Path) -> None:
    levels = torch.arange(8)[:, None].expand(8, 32)
    tensors = {"weight_packed": pack(levels, PLAIN), "weight_scale": torch.ones(8, 1)}
    shape = {"weight_shape": torch.tensor([8, 32])}
    repack(compressed(tmp_path / "s", tensors | shape, symmetric=True), tmp_path / "g", tokenizer=tmp_path / "s")
    dequantize(tmp_path / "g", tmp_path / "d")
    (weight,) = load_file(tmp_path / "d" / "model.safetensors").values()
    assert weight[:, 0].tolist() == [-8, -7, -6, -5, -4, -3, -2, -1]


def test_large_models_are_written_in_parts_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_folder, "SHARD_BYTES", 300)
    norms = {f"model.layers.{n}.norm.weight": torch.full((64,), float(n)) for n in range(5)}
    repack(compressed(tmp_path / "s", norms), tmp_path / "g", tokenizer=tmp_path / "s")
    index = json.loads((tmp_path / "g" / "model.safetensors.index.json").read_text())
    parts = {name: load_file(tmp_path / "g" / name) for name in set(index["weight_map"].values())}
    assert sorted(parts) == [f"model-0000{n}.safetensors" for n in (1, 2, 3)]
    assert index["metadata"]["total_size"] == 5 * 128
    for n in range(5):
        name = f"model.layers.{n}.norm.weight"
        assert parts[index["weight_map"][name]][name][0].item() == n


def test_what_the_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    whole = {
        "weight_packed": torch.zeros(8, 4, dtype=torch.int32),
        "weight_scale": torch.ones(8, 1),
        "weight_shape": torch.tensor([8, 32]),
    }
    for number, (change, scheme, said) in enumerate(
        [
            ({"weight_g_idx": torch.zeros(32)}, {}, "activation order"),
            ({"weight_scale": torch.full((8, 1), 1e6)}, {}, "beyond float16"),
            ({"weight_shape": torch.tensor([8, 31])}, {}, "do not divide"),
            ({}, {"num_bits": 8}, "not in 4 bits by groups"),
        ]
    ):
        source = compressed(tmp_path / f"s{number}", whole | change, **scheme)
        with pytest.raises(ExportFailed, match=said):
            repack(source, tmp_path / "out", tokenizer=source)
        assert not (tmp_path / "out").exists()
    (tmp_path / "s0" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ExportFailed, match="it is not quantized"):
        repack(tmp_path / "s0", tmp_path / "out", tokenizer=tmp_path / "s0")
    with pytest.raises(ExportFailed, match="not in AWQ's gemm layout of 4 bits: it is not quantized"):
        dequantize(tmp_path / "s0", tmp_path / "out")
    (tmp_path / "s1" / "model.safetensors").unlink()
    with pytest.raises(ExportFailed, match=r"holds no \.safetensors file"):
        repack(tmp_path / "s1", tmp_path / "out", tokenizer=tmp_path / "s1")
    with pytest.raises(ExportFailed, match="no Hugging Face model folder"):
        dequantize(tmp_path, tmp_path / "out")
