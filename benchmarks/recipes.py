"""Every way to make a student, at an equal budget of training steps, on three tasks of Debian's packages.

    scripts/bench recipes [--data FOLDER] [--steps 75] [--judged 500] [--only PATTERN] [--anew]
    scripts/bench recipes --short --only 'community; (teacher|pruned)'        a few steps; writes nothing

A cell is `task; recipe; seed`; about 8 minutes on 2 free cores. The local teacher is SmolLM2, all its weights trained
on the same examples for twice the steps. LoRA, top-k and the pruned half have 3 seeds, the others one. `@int4` is
served in int4: there `quantized` (rounded in training) stands beside `lora` (distil, then quantize). What an API would
tell is the teacher's: the 20 likeliest tokens at each token of the logged answer. The pairs of `preference` are lost by
a student of a quarter of the steps. `adapters` learns all three tasks, each with a third of the steps. Calibration is
the expected calibration error (10 bins) of the probability that the served model gives its own answer.

A cell that is done is kept in out/recipes while what made it is the same, and a killed one goes on where it was. FOLDER
holds packages.jsonl.gz. Writes benchmarks/results/recipes.json (with --only: what is done so far).
"""

import argparse
import re
import shutil
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import kept_parts
import msgspec
import results_file
import torch
from recipes_lessons import lost, told
from recipes_tasks import TASKS, draw

from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.scorer import scorer
from retrainer.recipes import RECIPES, Job, Recipe
from retrainer.recipes.causal import Causal
from retrainer.train.distil import Stage, Step, on_completions, open_student, train_stage
from retrainer.train.prune import prune
from router.policy import RoutePolicy

ROOT = Path(__file__).resolve().parents[1]
MADE_BY = (
    *sorted((ROOT / "retrainer" / "recipes").glob("*.py")),
    *sorted((ROOT / "retrainer" / "train").glob("*.py")),
    *(ROOT / "benchmarks" / f"recipes_{name}.py" for name in ("tasks", "lessons")),
    Path(__file__),
)
LEARNT = 1200
SEEDED, SEEDS = ("lora", "topk", "pruned", "linear", "encoder"), 3
# SmolLM2's head is a fifth of it and stays: to be 1.8 times as fast, half the layers lose a quarter of their neurons.
HALF = {"keep_layers": 0.5, "keep_ffn": 0.75}
PRUNED = ("pruned", "layerwise", "cascade")


class Bench(msgspec.Struct, frozen=True):
    """`folder`: where cells are worked on."""

    folder: Path
    data: Path
    steps: int
    judged: int
    base: str = "SmolLM2-135M-Instruct"

    def examples(self, task: str) -> tuple[list[Example], list[Example]]:
        """To learn from, and to be judged by."""
        found = draw(task, LEARNT + self.judged, data=self.data)
        return found[:LEARNT], found[LEARNT:]

    def job(self, part: str, train: list[Example], *, steps: int | None = None, base: str = "", **distil: Any) -> Job:
        task, name, seed = part.split("; ")
        recipe, _, quantization = name.partition("@")
        policy = RoutePolicy.model_validate(
            {
                "teachers": ["up/m"],
                "quality": {"score": "json_fields"},
                "student": {"base": base or self.base, "recipe": recipe if recipe in RECIPES else "lora"},
                "retrain": {
                    "learning_rate": 8e-4, "epochs": 8, "seed": int(seed), "quantization": quantization or "int8",
                    "distil": distil,
                },
            }
        )  # fmt: skip
        folder = self.folder / re.sub(r"\W+", "_", part)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(str(self.folder / "state"), policy, folder, show, max_steps=steps or self.steps)
        lineage = {"digest": "", "first": 0, "end": 0, "read": 0, "counts": {}, "groups": 0}
        lineage |= {"dropped": {}, "upstreams": {}, "scrubbers": {}, "route": task}
        job.data = Dataset(train=train, validation=[], test=[], manifest=DatasetManifest(**lineage))
        return job

    def teacher(self, task: str) -> Path:
        """The local teacher of a task, trained where it isn't yet."""
        job = self.job(f"{task}; teacher; 0", self.examples(task)[0], steps=2 * self.steps)
        whole(job, job.folder / "merged")
        return job.folder / "merged"


def whole(job: Job, out: Path) -> dict[str, Any]:
    """Full fine-tuning on the texts."""
    stage = Stage(name="whole", start=job.base.folder, out=out, rows=job.rows, full=True)
    return train_stage(job, stage, on_completions(job, job.rows, Step.hard))


def make(part: str, *, bench: Bench) -> dict[str, Any]:
    """One cell: train, export, and let what will be served answer."""
    task, name, _ = part.split("; ")
    train, judged = bench.examples(task)
    job = prepared(bench, part, train)
    recipe = Causal(job, whole) if name == "teacher" else RECIPES[job.student.recipe](job)
    recipe.prepare()
    facts = recipe.train()
    artefact = job.folder / "artefact"
    shutil.rmtree(artefact, ignore_errors=True)
    artefact.mkdir()
    recipe.export(artefact)
    report = answered(recipe, artefact, [*train, *judged], judged)
    sized = sum(file.stat().st_size for file in artefact.iterdir())
    shutil.rmtree(artefact)
    stages = facts.get("stages") or [facts]
    return {
        "agreement": report.agreement,
        "valid_json": report.valid_json,
        "ece": calibration_error(report),
        "bytes": sized,
        "tokens_per_second": report.tokens_per_second,
        "steps": sum(stage.get("steps", 0) for stage in stages),
        "train_seconds": sum(stage.get("seconds", 0.0) for stage in stages),
    }


def prepared(bench: Bench, part: str, train: list[Example]) -> Job:
    """A cell's job, with what its recipe needs beside the texts."""
    task, name, seed = part.split("; ")
    recipe = name.partition("@")[0]
    if recipe == "adapters":
        tasks = [bench.examples(other)[0] for other in TASKS]
        return bench.job(part, [e for some in tasks for e in some], steps=max(1, bench.steps // len(TASKS)))
    if recipe == "teacher":
        return bench.job(part, train, steps=2 * bench.steps)
    if recipe in ("lora", "self", "linear", "encoder"):
        return bench.job(part, train)
    if recipe == "quantized":
        return bench.job(part, train, teacher=str(bench.teacher(task)))
    if recipe == "preference":
        earlier = bench.job(f"{task}; lora earlier; {seed}", train, steps=max(1, bench.steps // 4))
        return bench.job(part, lost(earlier))
    teacher = str(bench.teacher(task))
    if recipe == "topk":
        return bench.job(part, told(bench.job(part, train), Path(teacher)))
    if recipe == "ensemble":
        second = bench.job(f"{task}; lora second; 1", train)
        RECIPES["lora"](second).train()
        return bench.job(part, train, teachers=(teacher, str(second.folder / "merged")))
    shares = HALF if recipe in PRUNED else {}
    job = bench.job(part, train, teacher=teacher, **shares)
    if recipe == "cascade":  # its student is the half itself
        half = job.folder / "half"
        if not half.exists():
            prune(job, open_student(Path(teacher)), Path(teacher), half)
        job = bench.job(part, train, base=str(half), teacher=teacher, **shares)
    return job


def answered(recipe: Recipe, artefact: Path, seen: list[Example], judged: list[Example]) -> Report:
    """What the served form answers, each answer decoded by itself and without a draft: the time is that of serving."""
    generate: Any = recipe.exported(artefact).generate
    most = recipe.most_tokens([e.answer for e in seen])
    return evaluate(generate, judged, scorer("json_fields", artefact), max_new_tokens=most, progress=show)


def calibration_error(report: Report, bins: int = 10) -> float | None:
    """Expected calibration error (Guo et al. 2017, equal widths) of p(answer) = exp(sum of its log probabilities)."""
    pairs = [(o.whole.total, o.value) for o in report.outcomes if o.whole and o.value is not None]
    if not pairs:
        return None
    sure = torch.tensor([total for total, _ in pairs]).exp().clamp(max=1.0)
    right = torch.tensor([float(value) for _, value in pairs])
    which = (sure * bins).long().clamp(max=bins - 1)
    found = 0.0
    for one in which.unique():
        here = which == one
        found += float(here.float().mean()) * abs(float(sure[here].mean() - right[here].mean()))
    return found


def costs(only: str) -> dict[str, float]:
    """Every cell, with about how many seconds it takes; a task's teacher first."""
    found = {}
    for task in TASKS:
        found[f"{task}; teacher; 0"] = 900.0
        for name in (*RECIPES, "lora@int4", "quantized@int4"):
            if name not in ("auto", "quantized"):
                found |= {f"{task}; {name}; {seed}": 480.0 for seed in range(SEEDS if name in SEEDED else 1)}
    return {part: cost for part, cost in found.items() if re.search(only, part)}


def table(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the seeds, by task and recipe."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task in TASKS:
        names = dict.fromkeys(part.split("; ")[1] for part in cells if part.startswith(f"{task}; "))
        for name in names:
            rows = [row for part, row in cells.items() if part.startswith(f"{task}; {name}; ")]
            keys = [key for key in rows[0] if all(row[key] is not None for row in rows)]
            found.setdefault(task, {})[name] = {key: mean(row[key] for row in rows) for key in keys}
    return found


def goals(rows: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Of those cells that there are."""
    found, sample, section = [], rows.get("community", {}), rows.get("section", {})
    if {"teacher", "pruned"} <= sample.keys():
        half, teacher = sample["pruned"], sample["teacher"]
        found.append(
            results_file.goal(
                "pruned half: of the teacher's agreement", half["agreement"] / teacher["agreement"], ">=", 0.95
            )
        )
        speed = half["tokens_per_second"] / teacher["tokens_per_second"]
        found.append(results_file.goal("pruned half: times the teacher's speed", speed, ">=", 1.8))
    int4 = [row["agreement"] for name, row in sample.items() if name.endswith("@int4")]
    if "teacher" in sample and int4:
        found.append(
            results_file.goal(
                "best int4: of the teacher's agreement", max(int4) / sample["teacher"]["agreement"], ">=", 0.97
            )
        )
    others = [row["agreement"] for name, row in section.items() if name not in ("lora", "teacher")]
    if "lora" in section and others:
        gained = 100 * (max(others) - section["lora"]["agreement"])
        found.append(results_file.goal("best recipe on section: points above LoRA", gained, ">=", 2.0))
    return found


def show(phase: str, done: int, total: int, left: float | None) -> None:
    """One line in twenty-five steps."""
    if done % 25 == 0:
        print(f"  {phase} {done}/{total}, {left if left is None else round(left)} s left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=75, help="of 16 examples each")
    parser.add_argument("--judged", type=int, default=500)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name holds it (a regular expression)"
    )
    parser.add_argument("--base", default=Bench.__struct_defaults__[0], help="of teacher and students")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--anew", action="store_true")
    options = parser.parse_args()
    steps, judged = (4, 20) if options.short else (options.steps, options.judged)
    key = kept_parts.digest(MADE_BY, steps, judged, options.base)
    data = options.data / "packages.jsonl.gz"
    bench = Bench(folder=ROOT / "out" / "recipes" / key, data=data, steps=steps, judged=judged, base=options.base)
    making = partial(make, bench=bench)
    _, cells = kept_parts.run("recipes", costs(options.only), making, key=key, processes=1, anew=options.anew)
    rows = table(cells)
    for task, by_name in rows.items():
        for name, row in by_name.items():
            print(task, name, {key: round(value, 3) for key, value in row.items()})
    if options.short:
        results_file.show("recipes", goals(rows))
    else:
        results_file.write("recipes", {"steps": steps, "judged": judged, "rows": rows, "cells": cells}, goals(rows))


if __name__ == "__main__":
    main()
