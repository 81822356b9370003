"""The picture and the table of benchmarks/results/recipes.json, in docs/recipes.png and docs/recipes.md.

.venv/bin/python benchmarks/recipes_plot.py     makes them again from the committed result
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import results_file
from recipes_tasks import TASKS

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

Every recipe with 1,200 examples and {steps} steps of 16 of the student's own (`encoder`: of 32, after its heads are
fitted; `linear` is fitted to the optimum, and every seed gives the same), judged by {judged} examples that none has
seen. What else a recipe trains comes on top and is in the seconds: an assistant (`cascade`), a second teacher
(`ensemble`), an adapter a task (`adapters`, a third of the steps each).
The teacher is {base} with all its weights trained for twice the steps. `@int4` is served in int4, all others in
int8. `speed` is how often the student answers in the time of one of the teacher's answers, both taken by turns;
students whose graphs are as large as the teacher's have {slowest:.2f} to {fastest:.2f}, so it is no nearer than
that. Tokens a second are the teacher's times `speed`; seconds of training are those of whatever else the machine
did, on one core. Agreement is a mean over the seeds, with the lowest and the highest where there are several.
Calibration is the expected calibration error of a whole answer's own probability ("-": to be measured). Cells took
longer than one machine was at hand: they are of {versions} versions of the code, and those marked `*` have seeds of
several; with each version the teacher was trained anew. From
[benchmarks/results/recipes.json](../benchmarks/results/recipes.json), which `scripts/bench recipes` writes; [what
each recipe is](distillation.md).

![Agreement against speed, by task](recipes.png)
"""


def document(result: Mapping[str, Any]) -> str:
    """The page's text."""
    figures = result["figures"]
    cells = figures["cells"]
    size = {task: rows["teacher"]["bytes"] for task, rows in figures["rows"].items() if "teacher" in rows}
    equal = [cell["speed"] for part, cell in cells.items() if cell["bytes"] == size[part.split("; ")[0]]]
    versions = len({cell["made_by"] for cell in cells.values()})
    text = HEAD.format(**figures, slowest=min(equal), fastest=max(equal), versions=versions)
    for task in TASKS:
        if task not in figures["rows"]:
            continue
        text += (
            f"\n## {TITLES[task]}\n\n| recipe | seeds | agreement | of the teacher | valid JSON | calibration error |"
        )
        text += " size, MB | tokens/s | speed | trained, s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        rows = figures["rows"][task]
        for name in sorted(rows, key=lambda name: (name != "teacher", -rows[name]["agreement"])):
            text += _line(name, rows[name], rows["teacher"], spread(cells, task, name), mark=_mixed(cells, task, name))
    return text + results_file.asked(result["goals"])


def spread(cells: Mapping[str, Any], task: str, name: str) -> tuple[float, float]:
    """The lowest and the highest agreement over the seeds."""
    found = [cell["agreement"] for part, cell in cells.items() if part.startswith(f"{task}; {name}; ")]
    return min(found), max(found)


def _mixed(cells: Mapping[str, Any], task: str, name: str) -> str:
    """A mark, where seeds are of several versions of the code."""
    versions = {cell["made_by"] for part, cell in cells.items() if part.startswith(f"{task}; {name}; ")}
    return "*" if len(versions) > 1 else ""


def _line(
    name: str, row: Mapping[str, Any], teacher: Mapping[str, Any], ends: tuple[float, float], *, mark: str
) -> str:
    agreement = f"{row['agreement']:.1%}" + (f" ({ends[0]:.1%} to {ends[1]:.1%})" if row["seeds"] > 1 else "")
    error = f"{row['calibration_error']:.3f}" if "calibration_error" in row else "-"
    rate = "-" if name in CLOSED else f"{row['speed'] * teacher['tokens_per_second']:.0f}"
    share, valid = (f"{x:.1%}" for x in (row["agreement"] / teacher["agreement"], row["valid_json"]))
    size, speed, trained = f"{row['bytes'] / 1e6:.1f}", f"{row['speed']:.2f}", f"{row['train_seconds']:.0f}"
    cells = (name + mark, row["seeds"], agreement, share, valid, error, size, rate, speed, trained)
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
    axes.set_xlim(0.2, 1500)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(TITLES[task], fontsize=11)
    axes.set_xlabel("times the teacher's speed")
    axes.set_ylabel("agreement with the reference")
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


def _labels(axes: Any, names: list[str], rows: Mapping[str, Any]) -> None:
    """Beside the points; those of one speed stand apart by their order."""
    values = [rows[name]["agreement"] for name in names]
    height = (max(values) - min(values) or 1.0) / 26
    below: dict[int, float] = {}
    for name in names:
        speed, value = rows[name]["speed"], rows[name]["agreement"]
        column = sum(speed >= least for least in (1.6, 8, 100))
        at = below[column] = max(value, below.get(column, -1.0) + height)
        line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(name, (speed, value), xytext=(speed * 1.25, at), fontsize=7.5, va="center", arrowprops=line)


def show_all() -> None:
    """Write the picture and the page, from the result."""
    result = json.loads(RESULT.read_text())
    draw(result["figures"], PICTURE)
    TABLE.write_text(document(result))


if __name__ == "__main__":
    show_all()
