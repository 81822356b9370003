"""The tiny model really quantized by llm-compressor, and exported to ONNX from there."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file

from exporters.models import ExportFailed, GenAIGenerator, dequantize, parity, to_awq, to_gptq, to_onnx
from exporters.models.awq_layout import group_size
from exporters.models.four_bits import group_for

pytestmark = pytest.mark.train

METHODS: dict[str, Any] = {"awq": to_awq, "gptq": to_gptq}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one table for tokens and head, as small models have it."""
    folder = tiny_model.build(tmp_path_factory.mktemp("four") / "tiny")
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = 0.4 * tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def samples(base: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    from retrainer.data.render import render

    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [render(tokenizer, tiny_model.messages(n), tiny_model.answer(tiny_model.question(n))) for n in range(40)]
    return [row.prompt + row.completion for row in rows]


@pytest.fixture(scope="module", params=list(METHODS))
def quantized(
    base: Path, samples: list[list[int]], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("four") / str(request.param)
    METHODS[request.param](base, folder, samples=samples[:24], log=folder.with_suffix(".log"))
    return folder


def logits(folder: Path, samples: list[list[int]]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in samples])


def test_four_bits_answer_nearly_as_the_model_and_as_their_onnx_graph(
    base: Path, quantized: Path, samples: list[list[int]], tmp_path: Path
) -> None:
    assert group_size(quantized) == 32
    assert {f.suffix for f in quantized.iterdir()} == {".json", ".safetensors", ".jinja"}
    assert sorted(f.name for f in quantized.parent.iterdir() if f.name.startswith(".")) == []
    dequantize(quantized, tmp_path / "dense")
    exact, rounded = logits(base, samples[24:]), logits(tmp_path / "dense", samples[24:])
    kl = torch.nn.functional.kl_div(rounded.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none")
    assert 1e-4 < kl.sum(-1).mean().item() < 0.22  # rounded to nearest: 0.24, on this random model

    method = quantized.name
    (tmp_path / "onnx").mkdir()
    to_onnx(quantized, tmp_path / "onnx", quantization=method, log=tmp_path / "export.log")  # type: ignore[arg-type]
    table = 4 * 512 * 64
    assert (tmp_path / "onnx" / "model.onnx.data").stat().st_size < 1.1 * table, (
        "embeddings in float32 are as much alone"
    )
    rows = [(ids[:-8], ids[-8:]) for ids in samples[24:]]
    near = parity(tmp_path / "dense", lambda: GenAIGenerator(tmp_path / "onnx", threads=1).logits, rows)
    assert near.kl < 0.01  # the same levels; the head in 8 bits, and the products' inputs


def test_groups_are_as_the_shapes_allow(base: Path, tmp_path: Path) -> None:
    def config(**shape: int) -> Path:
        told = json.loads((base / "config.json").read_text()) | shape
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(told))
        return folder

    assert group_for(base) == 32
    large = {"num_hidden_layers": 20, "vocab_size": 32000, "num_attention_heads": 16, "head_dim": 128}
    assert group_for(config(**large, hidden_size=2048, intermediate_size=8192)) == 128
    assert group_for(config(**large, hidden_size=2048, intermediate_size=8256)) == 64
    with pytest.raises(ExportFailed, match=r"multiples of 32, and it has \[48, 64, 192\]; retrain.quantization: int8"):
        group_for(config(hidden_size=48, num_attention_heads=4, head_dim=16))


def test_what_can_not_be_quantized_is_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="awq needs conversations to calibrate on"):
        to_awq(base, tmp_path / "out", samples=[], log=tmp_path / "log")
    with pytest.raises(ExportFailed, match="no Hugging Face model folder"):
        to_gptq(tmp_path, tmp_path / "out", samples=[[1, 2]], log=tmp_path / "log")
    with pytest.raises(ExportFailed, match=r"(?s)quantizing by gptq ended with status 1; see .*log:\n.*index out of"):
        to_gptq(base, tmp_path / "out", samples=[[1, 99999]], log=tmp_path / "log")
    assert [f.name for f in tmp_path.iterdir()] == ["log"]
    with pytest.raises(ExportFailed, match="not in AWQ's gemm layout"):
        to_onnx(base, tmp_path, quantization="awq", log=tmp_path / "log")
