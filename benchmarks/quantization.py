"""What rounding costs: SmolLM2 fine-tuned on the sample task, and MiniLM with heads for it, in every way we can round.

    scripts/bench quantization [--steps 75] [--judged 500] [--only PATTERN] [--anew]
    scripts/bench quantization --short --only 'smollm2; (fp32|int8|gptq@32)'     a few steps; writes nothing

A cell is `model; format`. The student of `smollm2` has all its weights trained for twice the steps, as the local
teacher of `scripts/bench recipes`; `aware` is as many steps of the recipe `quantized`, which learns with its weights
rounded as the recipe rounds, and has the former as its teacher. `rtn` rounds to nearest; `@32` and `@64` are the
groups; all but `rtn@64` have zero points. In every 4-bit graph the head has 8 bits; k-quant is `k_quant_mixed`, which
gives 8 to more. AWQ and GPTQ are calibrated on the training part as a cycle's export does it, and `folder` is the size
of what vLLM reads.

Agreement is the task's score on examples that none has seen; KL and top-1 are against the student before the export, on
their answers' tokens (`exporters.models.parity`; an encoder's, on its values). `speed` is how often a form answers in
the time of one of fp32's answers in the same runtime, by turns, so that a machine's other work changes little. A killed
cell is made again; its student goes on where it was. The table is docs/quantization.md.
"""

import argparse
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kept_parts
import results_file
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from quantization_table import goals, write_page
from recipes import MADE_BY as RECIPES_MADE_BY
from recipes import ROOT, TIMED, Bench, show, times

from exporters.models import GenAIGenerator, Parity, parity, staged, to_awq, to_gptq
from exporters.models.closed import ClosedModel, text_of
from exporters.models.closed_encoder import GRAPH, EncoderScores
from exporters.models.parity import choices_parity
from exporters.models.to_onnx import build, to_onnx
from retrainer.data.curate import Example
from retrainer.evaluation.evaluate import evaluate
from retrainer.job import Job
from retrainer.recipes import RECIPES
from retrainer.recipes.calibration import conversations
from retrainer.recipes.encoder import Encoder
from retrainer.scoring import scorer

EXPORTERS = (
    "awq_layout", "compress", "four_bits", "genai", "hf_folder", "int8", "parity", "to_awq", "to_gptq", "to_onnx",
)  # fmt: skip
MADE_BY = (
    *RECIPES_MADE_BY,
    *(ROOT / "exporters" / "models" / f"{name}.py" for name in EXPORTERS),
    *(ROOT / "benchmarks" / f"quantization{name}.py" for name in ("", "_table")),
)
TASK = "community"
CALIBRATED: dict[str, Callable[..., None]] = {"awq": to_awq, "gptq": to_gptq}
# ONNX Runtime packs two groups' zero points in a byte, and fails on rows of 9 groups, as SmolLM2's are at 64:
# so `rtn@64` has none, and there is no `k-quant@64`, which always has them.
PAIRED = "32"
WHOLE_CACHE = "windowed_kv_cache=false"
CELLS = {  # with about how many seconds each takes
    "smollm2; fp32": 1500.0,
    "smollm2; int8": 150.0,
    **dict.fromkeys(("smollm2; rtn@32", "smollm2; rtn@64", "smollm2; k-quant@32"), 200.0),
    **{f"smollm2; {how}@{group}": 500.0 for how in ("awq", "gptq") for group in (32, 64)},
    "smollm2; int8 aware": 1400.0,
    "smollm2; k-quant@32 aware": 1400.0,
    "smollm2; awq@32 aware": 500.0,  # the student of the one before
    "smollm2; gptq@32 aware": 500.0,
    "minilm; fp32": 300.0,
    "minilm; int8": 100.0,
    **dict.fromkeys(("minilm; rtn@32", "minilm; rtn@64", "minilm; k-quant@32", "minilm; k-quant@64"), 60.0),
}


def make(part: str, *, bench: Bench, samples: int | None) -> dict[str, Any]:
    """One cell. `samples`: calibrate on so many conversations alone."""
    model, form = part.split("; ")
    return _minilm(form, bench) if model == "minilm" else _smollm2(form, bench, samples)


def _smollm2(form: str, bench: Bench, samples: int | None) -> dict[str, Any]:
    train, judged = bench.examples(TASK)
    rounding = form.removesuffix(" aware")
    job, source = _student(form, bench, train)
    exact = bench.teacher(TASK)
    floats = job.folder.parent / "quantization_fp32"
    if not floats.exists():
        with staged(floats) as staging:
            _export(exact, staging, "fp32", [], log=job.folder / "export.log")
    graph, folder = _graph(job, form), None
    if form == "fp32":
        graph = floats
    else:
        told = conversations(job)[:samples]
        with staged(graph) as staging:
            folder = _export(source, staging, rounding, told, log=job.folder / "export.log")
    most = with_room_for(job, [*train, *judged])
    rows = [(row.prompt, row.completion) for row in map(job.row, judged)]
    near = parity(source, lambda: GenAIGenerator(graph).logits, rows)
    report = _judged(GenAIGenerator(graph).generate, judged, most, graph)
    # loaded anew: one that has read these prompts would be ahead
    speed, rate = times(GenAIGenerator(graph), GenAIGenerator(floats), judged[:TIMED], most)
    found = {
        **report,
        **_told(near),
        "bytes": _size(graph),
        "folder_bytes": _size(folder) if folder else None,
        "speed": speed,
        "tokens_per_second": rate,
    }
    if form != "fp32":
        shutil.rmtree(graph)
    return found


def _student(form: str, bench: Bench, train: list[Example]) -> tuple[Job, Path]:
    """The job, and the dense folder of its trained student."""
    if not form.endswith(" aware"):
        return bench.job(f"{TASK}; teacher; 0", train), bench.teacher(TASK)
    how = "int8" if form.startswith("int8") else "int4"
    part = f"{TASK}; quantized@{how}; 0"
    job = bench.job(part, train, steps=2 * bench.steps, teacher=str(bench.teacher(TASK)))
    job.folder = job.folder.with_name(f"{job.folder.name}_twice")
    job.folder.mkdir(exist_ok=True)
    RECIPES["quantized"](job).train()
    return job, job.folder / "merged"


def _export(source: Path, out: Path, how: str, samples: list[list[int]], *, log: Path) -> Path | None:
    """Write a graph; the folder that it was made from, where that is rounded itself."""
    if how == "fp32":
        build(source, out, ["-p", "fp32", "--extra_options", WHOLE_CACHE], log=log)
    elif how == "int8":
        to_onnx(source, out, quantization="int8", log=log)
    else:
        method, _, group = how.partition("@")
        if method in CALIBRATED:
            folder = source.parent / f"rounded_{method}_{group}"
            CALIBRATED[method](source, folder, samples=samples, log=log.with_name("quantize.log"), group=int(group))
            to_onnx(folder, out, quantization="awq" if method == "awq" else "gptq", log=log)
            return folder
        zeros = "is_symmetric=false" if group == PAIRED else "is_symmetric=true"
        config = {"rtn": ["algo_config=rtn_last", zeros], "k-quant": ["algo_config=k_quant_mixed"]}
        options = [*config[method], f"block_size={group}"]
        build(source, out, ["-p", "int4", "--extra_options", WHOLE_CACHE, *options], log=log)
    return None


def _minilm(form: str, bench: Bench) -> dict[str, Any]:
    train, judged = bench.examples(TASK)
    job = bench.job(f"{TASK}; encoder; 0", train)
    recipe = Encoder(job)
    rounded, floats = _graph(job, "int8"), _graph(job, "fp32")
    if not floats.exists():
        recipe.prepare()
        recipe.train()
        with staged(rounded) as staging:
            recipe.export(staging)
        with staged(floats) as staging:
            shutil.copytree(rounded, staging, dirs_exist_ok=True)
            recipe.write_floats(staging / GRAPH)
    graph = _graph(job, form)
    if not graph.exists():
        with staged(graph) as staging:
            shutil.copytree(floats, staging, dirs_exist_ok=True)
            _four_bits(floats / GRAPH, staging / GRAPH, form)
    served, base = ClosedModel.load(graph), ClosedModel.load(floats)
    texts = [text_of(e.messages, base.card.shared, base.card.frame) for e in judged]
    report = _judged(served.generate, judged, 1, graph)
    exact, rounding = (EncoderScores.load(g, base.card.form) for g in (floats, graph))
    near = choices_parity(*([one(text)[0] for text in texts] for one in (exact, rounding)), base.card.form.sizes)
    speed, rate = _texts(rounding, exact, texts=texts)
    size = sum(f.stat().st_size for f in graph.iterdir() if f.name.startswith(GRAPH))
    return {**report, **_told(near), "bytes": size, "speed": speed, "texts_per_second": rate}


def _graph(job: Job, form: str) -> Path:
    """Where a form of the job's student is."""
    return job.folder / ("quantization_" + re.sub(r"\W+", "_", form))


def _four_bits(floats: Path, out: Path, form: str) -> None:
    """An encoder's graph with its products' weights in 4 bits, by ONNX Runtime's own quantizers (products of int8), and
    its table of tokens too, where the quantizer knows how."""
    method, _, group = form.partition("@")
    rtn = DefaultWeightOnlyQuantConfig(
        block_size=int(group), is_symmetric=False, accuracy_level=4, op_types_to_quantize=("MatMul", "Gather")
    )
    config = rtn if method == "rtn" else KQuantWeightOnlyQuantConfig()
    quantizer = MatMulNBitsQuantizer(str(floats), block_size=int(group), accuracy_level=4, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


def _told(near: Parity) -> dict[str, float]:
    return {"kl": near.kl, "top1": near.top1}


def _texts(served: EncoderScores, base: EncoderScores, *, texts: list[str], turns: int = 10) -> tuple[float, float]:
    """As `times`, of texts."""
    spent = [0.0, 0.0]
    for _ in range(turns):
        for which, one in enumerate((served, base)):
            began = time.monotonic()
            for text in texts[:TIMED]:
                one(text)
            spent[which] += time.monotonic() - began
    return spent[1] / spent[0], turns * len(texts[:TIMED]) / spent[0]


def _judged(generate: Any, judged: list[Example], most: int, artefact: Path) -> dict[str, Any]:
    drafts = [e.answer for e in judged]  # most are the student's own, and are only checked
    score = scorer("json_fields", artefact)
    report = evaluate(generate, judged, score, max_new_tokens=most, drafts=drafts, progress=show)
    return {"agreement": report.agreement, "lower": report.lower, "upper": report.upper}


def with_room_for(job: Job, examples: list[Example]) -> int:
    """How many tokens an answer may take."""
    return RECIPES["lora"](job).most_tokens([e.answer for e in examples])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=75, help="half of those of the student")
    parser.add_argument("--judged", type=int, default=500)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name holds it (a regular expression)"
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--anew", action="store_true")
    options = parser.parse_args()
    steps, judged, samples = (2, 20, 2) if options.short else (options.steps, options.judged, None)
    key = kept_parts.digest(MADE_BY, steps, judged)
    folder = ROOT / "out" / "quantization" / key
    bench = Bench(folder=folder, data=ROOT, steps=steps, judged=judged)
    asked = {part: cost for part, cost in CELLS.items() if re.search(options.only, part)}
    made_by = partial(make, bench=bench, samples=samples)
    _, cells = kept_parts.run("quantization", asked, made_by, key=key, processes=1, anew=options.anew)
    for part, cell in cells.items():
        print(part, {name: value if value is None else round(value, 4) for name, value in cell.items()})
    if options.short or options.only:
        results_file.show("quantization", goals(cells))
    else:
        results_file.write("quantization", {"steps": steps, "judged": judged, "cells": cells}, goals(cells))
        write_page()


if __name__ == "__main__":
    main()
