"""Where vLLM has no kernels for 4 bits, the very weights of the artefact are served dense."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from exporters.models.awq_layout import pack
from gateway.engines.errors import NotReady
from gateway.engines.vllm_dense import dense
from gateway.engines.vllm_memory import weights

GROUP = 32


def four_bits(source: Path, out: Path) -> dict[str, Any]:
    """Round a model's layers to the AWQ layout; returns the weights that this means."""
    import torch
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    tensors: dict[str, Any] = {}
    means: dict[str, Any] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight.to(torch.float16)
            continue
        groups = weight.T.reshape(-1, GROUP, weight.shape[0])
        low, high = groups.amin(1), groups.amax(1)
        scales = ((high - low) / 15).to(torch.float16)
        zeros = (-low / scales.float()).round().clamp(0, 15).int()
        levels = ((groups / scales.float()[:, None]).round() + zeros[:, None]).clamp(0, 15).int()
        means[name] = ((levels - zeros[:, None]) * scales.float()[:, None]).reshape(-1, weight.shape[0]).T
        layer = name.removesuffix(".weight")
        tensors[f"{layer}.qweight"] = pack(levels.reshape(-1, weight.shape[0]))
        tensors[f"{layer}.qzeros"], tensors[f"{layer}.scales"] = pack(zeros), scales
    save_file(tensors, out / "model.safetensors")
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP}
    (out / "config.json").write_text(json.dumps(config))
    return means


async def test_the_dense_weights_are_the_very_ones_and_are_made_once(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    artefact, cache = tmp_path / "artefacts" / "v1", tmp_path / "cache"
    means = four_bits(tiny_model.build(tmp_path / "tiny"), artefact)
    (cache / "v0").mkdir(parents=True)
    (cache / ".v-1.tmp").mkdir()
    (cache / ".v-1.lock").touch()
    made = await dense(artefact, cache)
    found = load_file(made / "model.safetensors")
    assert len(means) == 14
    assert all(bool((found[name] == weight).all()) for name, weight in means.items())
    assert "quantization_config" not in json.loads((made / "config.json").read_text())
    assert (made / "tokenizer.json").is_file()
    size = sum(weight.nbytes for weight in found.values())
    assert weights(artefact, width=4, packed=False) == size, "what memory is asked for before it is made"
    assert weights(artefact, width=None, packed=True) < size / 3
    left = {path.name for path in cache.iterdir()}
    assert left <= {"v1", ".v1.lock"}, "those of artefacts that are gone, and of conversions that were killed, are gone"
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert await dense(artefact, cache) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before


async def test_what_is_in_no_known_layout_is_refused_for_good(tmp_path: Path) -> None:
    artefact = tmp_path / "artefacts" / "v1"
    artefact.mkdir(parents=True)
    (artefact / "config.json").write_text("{}")
    with pytest.raises(NotReady, match=r"could not be written: .*it is not quantized"):
        await dense(artefact, tmp_path / "cache")
