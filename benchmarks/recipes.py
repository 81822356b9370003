"""Every way to make a student, those that write at an equal number of steps, on three tasks of Debian's packages.

    scripts/bench recipes [--data FOLDER] [--steps 75] [--judged 500] [--only PATTERN] [--anew]
    scripts/bench recipes --short --only 'community; (teacher|pruned)'        a few steps; writes nothing

A cell is `task; recipe; seed`; about 8 minutes on a free core. The local teacher is SmolLM2, all its weights trained
on the same examples for twice the steps. LoRA, top-k and the pruned half have 3 seeds, the others one. `@int4` is
served in int4: there `quantized` (rounded in training) stands beside `unrounded` (its stages and its teacher, without
the rounding) and `lora` (an adapter on the texts, then quantized). What an API would tell is the teacher's: the 20
likeliest tokens at each token of the logged answer. The pairs of `preference` are lost by a student of a quarter of the
steps. `adapters` learns all three tasks, each with a third of the steps. Calibration is the expected calibration error
(10 bins) of the probability that the served model gives its own answer. `speed`: how often the teacher's time for an
answer it takes, both in int8 (or as the cell says) and by turns; a machine's other work moves it all the same, and the
page says by how much.

A killed cell goes on where it was. Cells that benchmarks/results/recipes.json has, made with the same settings, are not
made again without --anew: all of them take longer than a machine is at hand. `made_by` is a digest of the code that
made a cell, `date` and `cpu` say when and where (earlier ones don't know; the file's own are of when it was last
written). FOLDER holds packages.jsonl.gz. The table and the picture are docs/recipes.md and docs/recipes.png.
"""

import argparse
import json
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import kept_parts
import msgspec
import results_file
from recipes_lessons import lost, told
from recipes_plot import show_all
from recipes_table import asked_for, calibration_error, goals, known, table
from recipes_tasks import TASKS, draw

from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest
from retrainer.evaluation.evaluate import evaluate
from retrainer.recipes import RECIPES, Job, quantized
from retrainer.recipes.causal import Causal, Fit
from retrainer.recipes.recipe import Exported
from retrainer.scoring import scorer
from retrainer.train.models import open_student
from retrainer.train.objectives import Step, on_completions
from retrainer.train.prune import prune
from retrainer.train.stage import Stage, train_stage
from router.policy import RoutePolicy

ROOT = Path(__file__).resolve().parents[1]
MADE_BY = (
    *sorted((ROOT / "retrainer" / "recipes").glob("*.py")),
    *sorted((ROOT / "retrainer" / "train").glob("*.py")),
    *(ROOT / "benchmarks" / f"recipes_{name}.py" for name in ("tasks", "lessons")),
    Path(__file__),
)
LEARNT = 1200
# SmolLM2's head is a fifth of it and stays: to be 1.8 times as fast, half the layers lose half of their neurons.
HALF = {"keep_layers": 0.5, "keep_ffn": 0.5}
WHOLE = (
    "teacher",
    "full",
    "hidden",
    "attention",
    "cascade",
    "pruned",
    "layerwise",
    "quantized",
    "unrounded",
)  # all their weights learn
PRUNED = ("pruned", "layerwise", "cascade")
CLOSED, CHECKED = ("linear", "encoder"), 120
TIMED, TURN = 60, 10  # judged examples that speed is measured on, and how many are answered before the other's turn


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
                    "learning_rate": 8e-5 if recipe in WHOLE else 8e-4,
                    "epochs": 8, "seed": int(seed), "quantization": quantization or "int8",
                    "distil": distil,
                },
            }
        )  # fmt: skip
        folder = self.folder / re.sub(r"\W+", "_", part)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(str(self.folder / "state"), policy, folder, show, max_steps=steps or self.steps)
        lineage = {"digest": "", "first": 0, "end": 0, "read": 0, "counts": {}, "groups": 0}
        lineage |= {"dropped": {}, "upstreams": {}, "scrubbers": {}, "route": task}
        checked = CHECKED if recipe in CLOSED else 0  # that temperatures are fitted on
        parts = {"train": train[checked:], "validation": train[:checked], "test": list[Example]()}
        job.data = Dataset(**parts, manifest=DatasetManifest(**lineage))
        return job

    def teacher(self, task: str) -> Path:
        """The local teacher of a task, trained where it isn't yet."""
        job = self.job(f"{task}; teacher; 0", self.examples(task)[0], steps=2 * self.steps)
        whole(job, job.folder / "merged")
        return job.folder / "merged"

    def served_teacher(self, task: str) -> Exported:
        """The local teacher as it would be served."""
        folder = self.teacher(task).parent / "served"
        job = self.job(f"{task}; teacher; 0", self.examples(task)[0])
        recipe = Causal(job, whole)
        if not folder.exists():
            staging = folder.with_name("served.tmp")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            recipe.export(staging)
            staging.rename(folder)
        return recipe.exported(folder)


def whole(job: Job, out: Path) -> dict[str, Any]:
    """Full fine-tuning on the texts."""
    stage = Stage(name="whole", start=job.base.folder, out=out, full=True)
    return train_stage(job, stage, on_completions(job, Step.hard))


OWN: dict[str, Fit] = {
    "teacher": whole,
    "unrounded": partial(quantized.fit, rounded=False),
}  # no recipes of the product


def make(part: str, *, bench: Bench) -> dict[str, Any]:
    """One cell: train, export, and let what will be served answer."""
    task, name, _ = part.split("; ")
    train, judged = bench.examples(task)
    job = prepared(bench, part, train)
    own = OWN.get(name.partition("@")[0])
    recipe = Causal(job, own) if own else RECIPES[job.student.recipe](job)
    recipe.prepare()
    facts = recipe.train()
    artefact = job.folder / "artefact"
    shutil.rmtree(artefact, ignore_errors=True)
    artefact.mkdir()
    recipe.export(artefact)
    served = recipe.exported(artefact)
    most = recipe.most_tokens([e.answer for e in [*train, *judged]])
    generate: Any = served.generate
    report = evaluate(generate, judged, scorer("json_fields", artefact), max_new_tokens=most, progress=show)
    served = recipe.exported(artefact)  # anew: what it has read already it would not read again
    speed, rate = times(
        served, recipe.exported(artefact) if name == "teacher" else bench.served_teacher(task), judged[:TIMED], most
    )
    sized = sum(file.stat().st_size for file in artefact.iterdir())
    shutil.rmtree(artefact)
    stages = facts.get("stages") or [facts]
    return {
        "agreement": report.agreement,
        "valid_json": report.valid_json,
        "calibration": calibration_error(report),
        "bytes": sized,
        "tokens_per_second": rate,
        "speed": speed,
        "steps": sum(stage.get("steps", 0) for stage in stages),
        "train_seconds": sum(stage.get("seconds", 0.0) for stage in stages),
        **results_file.made(),
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
    if recipe in ("quantized", "unrounded"):
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
    shares: dict[str, Any] = HALF if recipe in PRUNED else {}
    job = bench.job(part, train, teacher=teacher, **shares)
    if recipe == "cascade":  # its student is the half itself
        half = job.folder / "half"
        if not half.exists():
            prune(job, open_student(Path(teacher)), Path(teacher), half)
        job = bench.job(part, train, base=str(half), teacher=teacher, **shares)
    return job


def times(served: Exported, teacher: Exported, judged: list[Example], most: int) -> tuple[float, float]:
    """How many answers a student gives in the time of one of the teacher's, taken by turns, and its tokens a second.
    Each answer is decoded by itself."""
    spent, tokens = [0.0, 0.0], 0
    for at in range(0, len(judged), TURN):
        prompts = [e.messages for e in judged[at : at + TURN]]
        for which, one in enumerate((served, teacher)):
            began = time.monotonic()
            said = [one.generate([prompt], max_new_tokens=most)[0] for prompt in prompts]
            spent[which] += time.monotonic() - began
            tokens += sum(answer.tokens for answer in said) if which == 0 else 0
    return spent[1] / spent[0], tokens / spent[0]


def costs(only: str) -> dict[str, float]:
    """Every cell, with about how many seconds it takes; a task's teacher first."""
    return {part: 900.0 if "; teacher; " in part else 480.0 for part in asked_for() if re.search(only, part)}


def show(phase: str, done: int, total: int, left: float | None) -> None:
    """One line in twenty-five steps."""
    if done % 25 == 0:
        print(f"  {phase} {done}/{total}, {left if left is None else round(left)} s left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=75, help="of 16 examples each (`encoder`: of 32)")
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
    asked = {"steps": steps, "judged": judged, "base": options.base}
    kept = {} if options.anew or options.short else committed(asked)
    left = {part: cost for part, cost in costs(options.only).items() if part not in kept}
    _, made = kept_parts.run("recipes", left, partial(make, bench=bench), key=key, processes=1, anew=options.anew)
    cells = kept | {part: {**cell, "made_by": key} for part, cell in made.items()}
    cells = {part: cells[part] for part in costs("") if part in cells}
    rows = table(cells)
    for task, by_name in rows.items():
        for name, row in by_name.items():
            print(task, name, {key: round(value, 3) for key, value in row.items()})
    if options.short:
        results_file.show("recipes", goals(rows))
    else:
        figures = {**asked, "rows": rows, "cells": cells}
        results_file.write("recipes", figures, goals(rows))
        show_all()


def committed(asked: dict[str, Any]) -> dict[str, Any]:
    """The cells of the result as it stands, where it was made with the same settings."""
    file = results_file.FOLDER / "recipes.json"
    figures = json.loads(file.read_text())["figures"] if file.exists() else {}
    return known(figures["cells"]) if asked.items() <= figures.items() else {}


if __name__ == "__main__":
    main()
