"""The goals and the table of benchmarks/results/quantization.json, in docs/quantization.md.

.venv/bin/python benchmarks/quantization_table.py     makes it again from the committed result
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import results_file

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantization.md"
LOST, SHARE = 0.01, 0.22
HEAD = """# What rounding costs

SmolLM2-135M with all its weights trained on the sample task ({steps} x 2 steps of 16), and MiniLM with heads for it,
rounded and judged by {judged} examples that none has seen. `aware`: learnt with its weights rounded (the recipe
[`quantized`](distillation.md#rounding), which rounds as int8 or as k-quant does); `@32`, `@64`: the groups. A cycle
exports encoders in int8 alone ([why](decisions/0022-int8-by-token.md)): their 4-bit rows are ONNX Runtime's own
quantizers on that student's graph (k-quant leaves its table of tokens as it is); AWQ and GPTQ are llm-compressor's, for
decoders. SmolLM2's 4-bit graphs have 8 bits in the head, and zero points, but for `rtn@64`: ONNX Runtime's own rounding
packs those in pairs, and fails on rows of 9 groups, as SmolLM2's are at 64; so there is no `k-quant@64`, either. KL
(nats a token) and top-1 are against the student before its export, on these examples' answers: an aware one's weights
are rounded by then. `speed` is how often a form answers in the time of one of fp32's answers, by turns; the rates
beside it are each cell's own. From [benchmarks/results/quantization.json](../benchmarks/results/quantization.json),
which `scripts/bench quantization` writes; [how to choose](students.md#quantization).
"""


def goals(cells: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each model, both of every form in 4 bits: choosing the best one on the very records that judge it would
    flatter it."""
    return [*_goals(cells, "smollm2", "int4"), *_goals(cells, "minilm", "MiniLM in int4")]


def _goals(cells: Mapping[str, Mapping[str, Any]], model: str, name: str) -> list[dict[str, Any]]:
    exact = cells.get(f"{model}; fp32")
    own = {part.removeprefix(f"{model}; "): cell for part, cell in cells.items() if part.startswith(f"{model}; ")}
    four = {form: cell for form, cell in own.items() if "@" in form}
    if exact is None or not four:
        return []
    worst = min(four, key=lambda form: four[form]["agreement"])
    largest = max(four, key=lambda form: four[form]["bytes"])
    lost = round(exact["agreement"] - four[worst]["agreement"], 4)
    share = round(four[largest]["bytes"] / exact["bytes"], 4)
    found = [
        results_file.goal(f"{name}, the form that loses most ({worst}): agreement lost against fp32", lost, "<=", LOST),
        results_file.goal(f"{name}, the largest ({largest}): of fp32's bytes", share, "<=", SHARE),
    ]
    if folders := {form: size for form, cell in four.items() if (size := cell.get("folder_bytes"))}:
        largest = max(folders, key=lambda form: folders[form])
        share = round(folders[largest] / exact["bytes"], 4)
        found.append(
            results_file.goal(f"{name}, the largest for vLLM ({largest}): of fp32's bytes", share, "<=", SHARE)
        )
    return found


def page(result: Mapping[str, Any]) -> str:
    """The page's text."""
    figures = result["figures"]
    text = HEAD.format(**figures)
    for model, title, rate in (
        ("smollm2", "SmolLM2, in onnxruntime-genai", "tokens_per_second"),
        ("minilm", "MiniLM, in ONNX Runtime", "texts_per_second"),
    ):
        cells = {part.split("; ")[1]: c for part, c in figures["cells"].items() if part.startswith(f"{model}; ")}
        text += (
            f"\n## {title}\n\n| | MB | of fp32 | folder for vLLM, MB | agreement | KL | top-1 | speed | a second |\n"
        )
        text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        for name, cell in cells.items():
            folder = cell.get("folder_bytes")
            text += f"| {name} | {cell['bytes'] / 1e6:.1f} | {cell['bytes'] / cells['fp32']['bytes']:.1%} "
            text += f"| {f'{folder / 1e6:.1f}' if folder else ''} | {cell['agreement']:.1%} "
            text += f"({cell['lower']:.1%} to {cell['upper']:.1%}) | {max(cell['kl'], 0.0):.4f} | {cell['top1']:.1%} "
            text += f"| {cell['speed']:.2f} | {cell[rate]:.0f} |\n"
    return text + results_file.asked(result["goals"])


def write_page() -> None:
    """From the committed result."""
    PAGE.write_text(page(json.loads((results_file.FOLDER / "quantization.json").read_text())))


if __name__ == "__main__":
    write_page()
