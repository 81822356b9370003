"""The picture and the page of benchmarks/results/closed.json: docs/closed.png and docs/closed.md.

.venv/bin/python benchmarks/closed_plot.py     makes them again from the committed result
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import results_file

mpl.use("agg")

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "closed.json"
PICTURE, PAGE = ROOT / "docs" / "closed.png", ROOT / "docs" / "closed.md"
COLOURS = {"linear": "#2e8b57", "encoder": "#e08214", "lora": "#1f5fbf"}
RUNGS_UP = ("linear", "encoder", "lora")
CORE_USD = 0.04 / 3600  # of a second on one core
INTENTS = {"banking77": "Banking77", "clinc150": "CLINC150"}
HEAD = """# What closed answers came to

From [benchmarks/results/closed.json](../benchmarks/results/closed.json), which `scripts/bench closed` writes;
[what the students are](students.md#closed-answers).
"""
SERVED = """
## Intents, through the gateway and the engine

The threshold is chosen on validation queries; the test queries are asked for once. Times are of a second pass, in which
the student answers all but the novel: one client after another for the percentiles, sixteen together for the rate, the
engine on one core. The oracle's coverage is by the threshold that the test queries' own truth would choose for an
agreement of 99.4%. CLINC150 is with its out-of-scope queries, whose answer is `oos`.

| task | student | accuracy | covered | agreement there | oracle's | p50, ms | p95, ms | a second | trained, s | MB |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""
RUNGS = """
## The 53 sections, by rung and number of examples

`oracle`: what the best threshold for these very answers covers at 5% risk. `certified`: what the promoter's tests
certified in the rollout, within 20,000 requests, with its risk, and `after` how many the first certificate came.
`saved`: USD of 1,000 requests, what the teacher would have cost for the covered ones less the student's time for all,
at the prices in `benchmarks/closed.py`. `ms`: of one answer, each by itself. `pays after`: how many requests earn back
what its training costs (a core's time, at the same price) beside that of the cheaper rung that saves most; of two
percentages of coverage, each measured on 2,000 requests, the larger is not surely so.

At every size 2,000 more examples choose temperatures, shares, calibration and thresholds, and 2,000 others are judged.
A route with 1,200 examples would have some 150 to choose by: what is certified at that size is flattered by the rest.

![Coverage by rung and examples](closed.png)

| learnt | student | agreement | oracle | certified | risk | of oracle | after | ms | saved | trained, s | pays after |
|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""
UNSURE = """
\\* To be measured again, and with it what is saved. `lora`: measured in passes shared by up to 16, of prompts that it
had read before; one answer by itself takes longer. `linear` and `encoder`: while the machine did other work; on a free
core they take less. Decoding and choosing by turns, one by one: [recipes.md](recipes.md).
"""


def document(result: Mapping[str, Any]) -> str:
    """The page's text."""
    figures = result["figures"]
    served, rungs, marked = "", "", False
    for part, row in figures.items():
        task, _, student = part.rpartition("-")
        if task in INTENTS:
            served += _line(
                INTENTS[task], student, *map(_share, (row["accuracy"], row["coverage"], row["agreement"])),
                _share(row["oracle coverage at 99.4%"]), f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}",
                f"{row['per_second']:.0f}", f"{row['train_seconds']:.0f}", f"{row['bytes'] / 1e6:.1f}",
            )  # fmt: skip
        else:
            mark = "" if row.get("timed") == "one by one" else "\\*"
            marked = marked or bool(mark)
            first = row["requests until certified"]
            rungs += _line(
                f"{row['learnt']:,}", student,
                *map(_share, (row["agreement"], row["oracle"], row["coverage"], row["risk"], row["of_the_oracle"])),
                "-" if first is None else f"{first:,.0f}", f"{row['ms']:.1f}{mark}", f"{row['saved_usd_per_1000']:.4f}",
                f"{row['train_seconds']:.0f}", _pays_after(part, figures),
            )  # fmt: skip
    parts = (
        SERVED + served if served else "",
        RUNGS + rungs + (UNSURE if marked else "") if rungs else "",
        results_file.asked(result["goals"]),
    )
    return HEAD + "".join(parts)


def cheaper(part: str, figures: Mapping[str, Any]) -> list[Any]:
    """The rungs below a part's, of as many examples."""
    name, _, rung = part.rpartition("-")
    return [figures[f"{name}-{r}"] for r in RUNGS_UP[: RUNGS_UP.index(rung)] if f"{name}-{r}" in figures]


def _pays_after(part: str, figures: Mapping[str, Any]) -> str:
    """Requests, where it saves more than the cheaper rungs."""
    rungs = cheaper(part, figures)
    if not rungs:
        return "-"
    best = max(rungs, key=lambda row: row["saved_usd_per_1000"])
    gained = figures[part]["saved_usd_per_1000"] - best["saved_usd_per_1000"]
    if gained <= 0:
        return "never"
    cost = CORE_USD * (figures[part]["train_seconds"] - best["train_seconds"])
    return f"{1000 * cost / gained:,.0f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def draw(figures: Mapping[str, Any], file: Path) -> None:
    """Left: agreement by examples. Right: coverage at 5% risk, certified (filled) and the oracle's (hollow)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    for student, colour in COLOURS.items():
        rows = sorted(
            (row for part, row in figures.items() if part.startswith("section-") and part.endswith(f"-{student}")),
            key=lambda row: row["learnt"],
        )
        if not rows:
            continue
        learnt = [row["learnt"] for row in rows]
        low, high = ([row["interval"][end] for row in rows] for end in (0, 1))
        left.plot(learnt, [row["agreement"] for row in rows], "o-", color=colour, label=student)
        left.fill_between(learnt, low, high, color=colour, alpha=0.12)
        right.plot(learnt, [row["coverage"] for row in rows], "o-", color=colour, label=f"{student}, certified")
        right.plot(
            learnt, [row["oracle"] for row in rows], "o--", color=colour, mfc="white", label=f"{student}, oracle"
        )
    for axes, title in ((left, "Agreement of all answers"), (right, "Requests answered at 5% risk")):
        axes.set_xscale("log")
        ticks = sorted({row["learnt"] for part, row in figures.items() if part.startswith("section-")})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("examples to learn from")
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.grid(color="#eeeeee", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8.5)
    figure.tight_layout()
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def show_all() -> None:
    """Write the picture, where there is something to draw, and the page, from the result."""
    result = json.loads(RESULT.read_text())
    figures = result["figures"]
    if any(part.startswith("section-") for part in figures):
        draw(figures, PICTURE)
    PAGE.write_text(document(result))


if __name__ == "__main__":
    show_all()
