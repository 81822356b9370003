"""`retort demo`, as a benchmark: the whole loop on real input, from an empty folder.

    scripts/bench demo [--runs 1] [--resume]
    scripts/bench demo --engine vllm     four bits from end to end: QLoRA, merged, AWQ, canary and live in vLLM

Writes benchmarks/results/demo.json (of the median run, by time) and docs/demo.png; with vLLM demo_vllm.json, where the
same AWQ weights also answer as an ONNX graph. On a machine with a GPU the same command trains and serves there
(`scripts/install_vllm --gpu`).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import results_file

from exporters.models import GenAIGenerator, Store, to_onnx
from retort.demo.settings import ROUTE
from retort.demo.traffic import MAX_TOKENS, same_answer
from retort.settings import load
from router import open_registry

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("onnxruntime", "vllm"), default="onnxruntime")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="take the runs that ended well before, in out/")
    options = parser.parse_args()
    name = "demo" if options.engine == "onnxruntime" else f"demo_{options.engine}"
    runs = []
    for n in range(options.runs):
        folder = ROOT / "out" / f"{name}-{n}"
        result = folder.with_suffix(".json")
        if not (options.resume and result.exists() and json.loads(result.read_text())["complete"]):
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, "-m", "retort", "demo", "--engine", options.engine]
            subprocess.run([*command, "--dir", folder, "--json", result], check=False, cwd=ROOT)
        run = json.loads(result.read_text())
        if "error" in run:
            raise SystemExit(f"run {n} did not come to its end: {run['error']}")
        runs.append((run, folder))
    runs.sort(key=lambda run: run[0]["seconds"])
    run, folder = runs[len(runs) // 2]
    seconds = [run["seconds"] for run, _ in runs]
    if options.engine == "vllm":
        agreement = in_onnx(folder)
        lost = results_file.goal("lost as an ONNX graph", run["agreement"]["quantized"] - agreement, "<=", 0.01)
        told = {"vllm_serves": serves(folder), "onnx": agreement, "seconds_of_each_run": seconds}
        results_file.write(name, {**run, **told}, [*goals(run), lost])
        return
    of_time = [
        results_file.goal("median seconds", run["seconds"], "<=", 1200),
        results_file.goal("worst seconds", max(seconds), "<=", 1800),
    ]
    results_file.write(name, {**run, "seconds_of_each_run": seconds}, [*goals(run), *of_time])
    shutil.copy(folder / "demo.png", ROOT / "docs" / "demo.png")


def goals(run: dict[str, Any]) -> list[dict[str, Any]]:
    """What every run must show."""
    goal, agreement = results_file.goal, run["agreement"]
    return [
        goal("promoted to live by evidence", run["promoted"], "==", 1),
        goal("bad candidate rejected in shadow", run["rejected_in_shadow"]["rejected"], "==", 1),
        goal("users served by the bad candidate", run["rejected_in_shadow"]["users_served"], "==", 0),
        goal("hot swap: both versions answered", run["hot_swap"]["by_both"], "==", 1),
        goal("every phase ended as it should", run["complete"], "==", 1),
        goal("rolled back when wrong", run["rolled_back"]["wrong"], "==", 1),
        goal("rolled back when failing", run["rolled_back"]["failing"], "==", 1),
        goal("failed requests", run["failed_requests"], "==", 0),
        goal("held-out records", agreement["n"], ">=", 1000),
        goal("agreement of the untrained base", agreement["base"], "<=", 0.05),
        goal("agreement of the student", agreement["student"], ">=", 0.95),
        goal("agreement lost by quantizing", round(agreement["student"] - agreement["quantized"], 4), "<=", 0.01),
        goal("valid JSON", run["valid_json"], ">=", 0.99),
        goal("decisions reproduced by replay", run["replay_reproduces"], "==", 1),
    ]


def serves(folder: Path) -> str:
    """In which form vLLM had the AWQ checkpoint here: in four bits, or dense where it has no kernels for them."""
    return "dense" if "engine.four_bits_unsupported" in (folder / "retort.log").read_text() else "four bits"


def in_onnx(folder: Path) -> float:
    """The agreement, on the held-out records, of the student's AWQ checkpoint as an ONNX graph."""
    config = load(str(folder / "retort.yaml"))
    registry = open_registry(config.registry)
    student = min(registry.versions(ROUTE), key=lambda version: version.created_at)
    registry.close()
    held_out = [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "onnx"
        out.mkdir()
        to_onnx(Store(config.artefacts).path(student.artefact), out, quantization="awq", log=Path(work) / "log")
        prompts = [record["messages"] for record in held_out]
        said = GenAIGenerator(out).generate(prompts, max_new_tokens=MAX_TOKENS)
    right = [same_answer(a.text, record["answer"]) for a, record in zip(said, held_out, strict=True)]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
