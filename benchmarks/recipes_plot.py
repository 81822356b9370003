"""The picture and the table of benchmarks/results/recipes.json, in docs/recipes.png and docs/recipes.md.

.venv/bin/python benchmarks/recipes_plot.py     makes them again from the committed cells, with its rows and goals
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import results_file
from recipes_table import asked_for, goals, known, table, twins, versions
from recipes_tasks import TASKS
from sklearn.isotonic import IsotonicRegression

from router.policy_student import CLOSED

mpl.use("agg")

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "recipes.json"
PICTURE, TABLE = ROOT / "docs" / "recipes.png", ROOT / "docs" / "recipes.md"
TITLES = {
    "community": "The sample task: 8 classes",
    "section": "The archive's section: 53 classes",
    "fields": "Section, role and language",
}
SMALLER = ("pruned", "layerwise", "cascade")
COLOURS = {"closed answers": "#2e8b57", "a smaller model": "#e08214", "a model of the teacher's size": "#1f5fbf"}
HEAD = """# What the recipes came to

{there} of {wanted} cells are measured (a recipe, a task, a seed): with 1,200 examples, judged by {judged} that none has
seen. Those that write have {steps} steps of 16 of the student's own. What else they train comes on top and is in the
seconds: an assistant (`cascade`), a second teacher (`ensemble`), an adapter a task (`adapters`, a third of the steps
each). Those that choose have a budget of their own: `encoder` fits its heads and then has {steps} steps of 32; `linear`
is fitted to its optimum and is deterministic: the same code gives the same student for every seed.

The teacher is {base} with all its weights trained for twice the steps. `@int4` is served in int4, all
others in int8. `speed` is how often the student answers in the time of one of the teacher's answers, both taken by
turns. Tokens a second are `speed` times the teacher's own, as if all answers were as long as its; those, and
the seconds of training, are of one core that had other work, too. Agreement (of several fields: the mean share that is
right) is a mean over the seeds, with the lowest and the highest where there are several. Calibration is the expected
calibration error of an answer's own probability, against whether the whole answer is right.
{noise}
Cells were made as time on a machine allowed, on several, while the code went on; below each table is by how many
versions of it (`made_by`). Each version trained its local teacher anew, so seeds of two versions differ by the teacher,
too. From [benchmarks/results/recipes.json](../benchmarks/results/recipes.json), which `scripts/bench recipes` writes;
[what each recipe is](distillation.md).

![Agreement against speed, by task](recipes.png)
"""
NOISE = """
Turns don't make `speed` exact: {count} students have a graph of the teacher's very size, which does the same work, and
theirs is {low:.2f} to {high:.2f}, by what else the machine did. A difference within that says nothing.
"""
COLUMNS = ("recipe", "seeds", "agreement", "of the teacher", "valid JSON", "calibration error", "size, MB", "tokens/s")
COLUMNS += ("speed", "trained, s")


def document(result: Mapping[str, Any]) -> str:
    """The page's text."""
    figures = result["figures"]
    same = twins(figures["cells"])
    noise = NOISE.format(count=len(same), low=same[0], high=same[-1]) if same else ""
    text = HEAD.format(**figures, noise=noise, there=len(figures["cells"]), wanted=len(asked_for()))
    for task in TASKS:
        if task not in figures["rows"]:
            continue
        text += f"\n## {TITLES[task]} (`{task}`)\n\n| " + " | ".join(COLUMNS)
        text += " |\n|---|" + "--:|" * (len(COLUMNS) - 1) + "\n"
        rows = figures["rows"][task]
        for name in sorted(rows, key=lambda name: (name != "teacher", -rows[name]["agreement"])):
            text += _line(name, rows[name], rows["teacher"], spread(figures["cells"], task, name))
        text += _below(task, figures)
    return text + results_file.asked(result["goals"])


def _below(task: str, figures: Mapping[str, Any]) -> str:
    """What a reader of a task's table must know of its cells."""
    count, mixed = versions(figures["cells"], task)
    text = f"\nMade by {count} version{'s' if count > 1 else ''} of the code"
    if mixed:
        text += f"; the seeds of {', '.join(f'`{name}`' for name in mixed)} are of more than one"
    if missing := [f"`{name}`" for name, row in figures["rows"][task].items() if "calibration" not in row]:
        text += f". Calibration errors that are missing ({', '.join(missing)}) are to be measured again"
    return text + ".\n"


def spread(cells: Mapping[str, Any], task: str, name: str) -> tuple[float, float]:
    """The lowest and the highest agreement over the seeds."""
    found = [cell["agreement"] for part, cell in cells.items() if part.startswith(f"{task}; {name}; ")]
    return min(found), max(found)


def _line(name: str, row: Mapping[str, Any], teacher: Mapping[str, Any], ends: tuple[float, float]) -> str:
    one = name == "linear" or row["seeds"] == 1
    agreement = f"{row['agreement']:.1%}" + ("" if one else f" ({ends[0]:.1%} to {ends[1]:.1%})")
    seeds = "deterministic" if name == "linear" else row["seeds"]
    error = f"{row['calibration']:.3f}" if "calibration" in row else "-"
    rate = f"{row['tokens_per_second']:.0f}" if "tokens_per_second" in row else "-"
    share, valid = (f"{x:.1%}" for x in (row["agreement"] / teacher["agreement"], row["valid_json"]))
    size, speed, trained = f"{row['bytes'] / 1e6:.1f}", f"{row['speed']:.2f}", f"{row['train_seconds']:.0f}"
    cells = (name, seeds, agreement, share, valid, error, size, rate, speed, trained)
    return "| " + " | ".join(map(str, cells)) + " |\n"


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """A panel a task: agreement against speed, each recipe a point."""
    tasks = [task for task in TASKS if task in figures["rows"]]
    figure, panels = plt.subplots(1, len(tasks), figsize=(6.2 * len(tasks), 6), squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        _panel(axes, task, figures)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=c, label=name) for name, c in COLOURS.items()]
    handles.append(plt.Line2D([], [], color="#555555", label="the teacher"))
    handles.append(plt.Line2D([], [], color="#555555", linestyle=":", label="95% of it"))
    figure.legend(handles=handles, ncol=5, loc="lower center", fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _panel(axes: Any, task: str, figures: Mapping[str, Any]) -> None:
    rows = figures["rows"][task]
    teacher = rows["teacher"]["agreement"]
    axes.axhline(teacher, color="#555555", linewidth=1)
    axes.axhline(0.95 * teacher, color="#555555", linewidth=1, linestyle=":")
    names = sorted((n for n in rows if n != "teacher"), key=lambda n: rows[n]["agreement"])
    for name in names:
        row, kind = rows[name], list(COLOURS)[0 if name in CLOSED else 1 if name in SMALLER else 2]
        low, high = spread(figures["cells"], task, name)
        axes.plot([row["speed"]] * 2, [low, high], color=COLOURS[kind], linewidth=1.2)
        axes.plot(row["speed"], row["agreement"], "o", color=COLOURS[kind], markersize=5)
    _labels(axes, names, rows)
    axes.set_xscale("log")
    axes.set_xlim(0.1, 1500)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(TITLES[task], fontsize=11)
    axes.set_xlabel("times the teacher's speed")
    axes.set_ylabel("agreement with the reference")
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


def _labels(axes: Any, names: list[str], rows: Mapping[str, Any]) -> None:
    """Beside the points, the slowest on their left; those of about one speed stand one above another, as near to theirs
    as there is room."""
    values = [rows[name]["agreement"] for name in names]
    height = (max(values) - min(values) or 1.0) / 24
    columns: dict[int, list[str]] = {}
    for name in names:
        columns.setdefault(sum(rows[name]["speed"] >= least for least in (1.6, 8, 100)), []).append(name)
    for number, column in columns.items():
        steps = np.arange(len(column)) * height
        free = np.array([rows[name]["agreement"] for name in column]) - steps
        line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        speeds = [rows[name]["speed"] for name in column]
        beside, side = (max(speeds) * 1.35, "left") if number else (min(speeds) / 1.35, "right")
        for name, at in zip(column, IsotonicRegression().fit_transform(range(len(column)), free) + steps, strict=True):
            point = (rows[name]["speed"], rows[name]["agreement"])
            axes.annotate(name, point, xytext=(beside, at), fontsize=7.5, va="center", ha=side, arrowprops=line)


def show_all() -> None:
    """Write the picture and the page, from the result."""
    result = json.loads(RESULT.read_text())
    draw(result["figures"], PICTURE)
    TABLE.write_text(document(result))


def judged_again(figures: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A result's figures and goals, of its cells."""
    cells = known(figures["cells"])
    rows = table(cells)
    return {**figures, "rows": rows, "cells": cells}, goals(rows)


if __name__ == "__main__":
    results_file.again("recipes", judged_again)
    show_all()
