"""A Hugging Face folder becomes a quantized ONNX graph for onnxruntime-genai on the CPU.

A dense one is rounded by the builder: int8 is the default (on a model of SmolLM2's size it keeps 95% of the top-1
choices), int4 is `k_quant_mixed` at half the size; see `docs/students.md`. One that AWQ or GPTQ has rounded
(`exporters.models.awq_layout`) keeps its very levels; its head, which they leave alone, gets 8 bits.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.models.apart import run_apart
from exporters.models.awq_layout import group_size
from exporters.models.errors import ExportFailed
from router.policy_student import Quantization

# Layers that see a window of tokens keep the whole cache: one of the window's size can't be shorter than that, nor be
# rewound to a prefix that prompts share. The builder's own default for int4 (round to nearest, groups of 32) doubles
# the perplexity loss of k_quant_mixed.
_WHOLE_CACHE = "windowed_kv_cache=false"
_BUILT = {
    "int8": ["-p", "int8", "--extra_options", _WHOLE_CACHE],
    "int4": ["-p", "int4", "--extra_options", _WHOLE_CACHE, "algo_config=k_quant_mixed"],
}
QUANTIZERS = {
    "none": "bfloat16",
    "int8": "onnxruntime-genai int8, groups of 32",
    "int4": "onnxruntime-genai int4, k_quant_mixed",
    "awq": "AWQ int4, groups of {group}, by llm-compressor",
    "gptq": "GPTQ int4, groups of {group}, by llm-compressor",
}
FILES = ("genai_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json")
TIMEOUT_SECONDS = 3600.0


# -P: its modules have plain names (`quantization`), and a file of the working folder must not stand in for one.
BUILDER = (sys.executable, "-P", "-W", "ignore", "-m", "onnxruntime_genai.models.builder")


def to_onnx(model: Path, out: Path, *, quantization: Quantization, log: Path, builder: Sequence[str] = BUILDER) -> None:
    """Export the folder `model` into the existing, empty folder `out`; the builder's output goes to the file `log`.

    `quantization`: `int8` and `int4` round a dense folder; for `awq` and `gptq`, `model` is what `to_awq` or `to_gptq`
    wrote. What was written is loaded and asked for one token before this returns: the builder can succeed and leave a
    graph that ONNX Runtime refuses. Raises ExportFailed.
    """
    if quantization == "none":
        raise ExportFailed("weights that aren't quantized are for vLLM; an ONNX graph takes int8, int4, awq or gptq")
    options = _BUILT[quantization] if quantization in _BUILT else _prequantized(group_size(model))
    build(model, out, options, log=log, builder=builder)


def build(model: Path, out: Path, options: Sequence[str], *, log: Path, builder: Sequence[str] = BUILDER) -> None:
    """`to_onnx` with the builder's own options. Raises ExportFailed."""
    if not (model / "config.json").is_file():
        raise ExportFailed(f"{model} is no Hugging Face model folder: it holds no config.json")
    command = [*builder, "-i", str(model), "-o", str(out), "-e", "cpu", "-c", str(log.parent / "builder-cache")]
    run_apart([*command, *options], log=log, name="the ONNX builder", timeout=TIMEOUT_SECONDS)
    missing = [name for name in FILES if not (out / name).is_file()]
    if missing:
        raise ExportFailed(f"the ONNX builder wrote no {', '.join(missing)} into {out}; see {log}")
    _load_test(out)


def _prequantized(group: int) -> list[str]:
    """The levels' zero points are their own. The head is symmetric, so that tied embeddings can be the very tensor: in
    float32 beside it they would double a small model."""
    return ["-p", "int4", "--extra_options", _WHOLE_CACHE, "algo_config=rtn_last", f"block_size={group}"]


def _load_test(folder: Path) -> None:
    import numpy as np  # noqa: PLC0415 - with onnxruntime-genai, heavy
    import onnxruntime_genai as og  # noqa: PLC0415 - heavy: only exports and engines pay for it

    og.disable_telemetry_events()
    try:
        model = og.Model(str(folder))
        tokenizer = og.Tokenizer(model)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=64, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.asarray(tokenizer.encode("ready?"), dtype=np.int32))
        logits = np.asarray(generator.get_logits())
        generator.generate_next_token()
    except RuntimeError as error:
        raise ExportFailed(f"ONNX Runtime refuses the exported graph in {folder}: {error}") from error
    if not np.isfinite(logits).all():
        raise ExportFailed(f"the exported graph in {folder} computes values that are not finite")
