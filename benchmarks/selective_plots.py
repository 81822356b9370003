"""The picture of benchmarks/results/selective.json.

.venv/bin/python benchmarks/selective_plots.py     draws it again from the committed result
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from selective_streams import STEADY

mpl.use("agg")

ROOT = Path(__file__).resolve().parents[1]
RULES = {"Retort": "#1f5fbf", "CSA's rule": "#e08214", "BARGAIN": "#2e8b57"}
# In the streams of real queries: the rule, its colour, its name.
ROWS = {
    "through the rollout": ("#1f5fbf", "Retort through the rollout, a quarter of the answers audited"),
    "every pair known: Retort": ("#8fb4e8", "Retort, every pair known"),
    "every pair known: CSA's rule": ("#e08214", "CSA's rule, every pair known"),
    "the whole stream at once: BARGAIN": ("#2e8b57", "BARGAIN, the whole stream at once"),
}
MARKS = {"random": "o", "drifting": "^"}


def draw(figures: dict[str, Any], file: Path) -> None:
    """Above: the simulated streams. Below: each real route's curve of coverage against risk, and where rules end."""
    real = figures["real"]
    figure = plt.figure(figsize=(15, 9.5))
    above, below = figure.add_gridspec(2, 1, height_ratios=[1, 1.05], hspace=0.42)
    left, right = above.subgridspec(1, 2, wspace=0.12).subplots()
    _coverage(left, {name: row for name, row in figures["simulated"].items() if row["oracle's coverage"]})
    _risk(right, figures["simulated"])
    for axes, (name, route) in zip(
        below.subgridspec(1, len(real), wspace=0.2).subplots(squeeze=False).ravel(), real.items(), strict=True
    ):
        _curve(axes, name, route)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour, label=name) for colour, name in ROWS.values()]
    handles += [
        plt.Line2D([], [], marker=mark, linestyle="", color="#666666", label=f"{order} order")
        for order, mark in MARKS.items()
    ]
    handles.append(plt.Line2D([], [], color="#999999", label="any threshold, by all held-out queries"))
    figure.legend(handles=handles, ncol=4, loc="lower center", fontsize=9, bbox_to_anchor=(0.5, 0.0))
    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _bars(axes: Any, rows: dict[str, Any], figure: str) -> None:
    places = np.arange(len(rows))
    for shift, (rule, colour) in zip((-0.26, 0.0, 0.26), RULES.items(), strict=True):
        axes.bar(places + shift, [row[rule][figure] for row in rows.values()], 0.25, color=colour, label=rule)
    axes.set_xticks(
        places, [name.replace(", ", ",\n").replace(" at ", "\nat ") for name in rows], fontsize=7.5, rotation=35
    )
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)


def _coverage(axes: Any, rows: dict[str, Any]) -> None:
    _bars(axes, rows, "of the oracle's, mean")
    for x, row in enumerate(row for name, row in rows.items() if name in STEADY):
        axes.hlines(row["of the oracle's, at most"], x - 0.42, x + 0.42, color="black", linewidth=1.3)
    axes.hlines([], 0, 0, color="black", label="what the best bet of all would certify")
    axes.axhline(0.8, color="#444444", linestyle="--", linewidth=0.8)
    axes.set_ylim(0, 1.3)
    axes.set_title("Simulated: coverage after 10,000 pairs, of the oracle's", fontsize=11)
    axes.legend(fontsize=8, ncol=2, loc="upper left")


def _risk(axes: Any, rows: dict[str, Any]) -> None:
    _bars(axes, rows, "runs with realised risk within")
    axes.axhline(0.95, color="#444444", linestyle="--", linewidth=0.8)
    axes.set_ylim(0, 1.05)
    axes.set_title("Simulated: runs in which the realised risk is within what was allowed", fontsize=11)


def _curve(axes: Any, name: str, route: dict[str, Any]) -> None:
    axes.plot([100 * r for r in route["risk"]], route["coverage"], color="#999999", linewidth=1.2)
    for setting, rules in route["streams"].items():
        order, target = setting.split(", ")
        for rule, (colour, _) in ROWS.items():
            found = rules[rule]
            if found["agreement"] is not None:
                size = 60 if target == "98%" else 26
                axes.scatter(
                    100 * (1 - found["agreement"]), found["coverage at last"], marker=MARKS[order], s=size,
                    color=colour, edgecolors="white", linewidths=0.5, zorder=3,
                )  # fmt: skip
    for risk in (2, 5):
        axes.axvline(risk, color="#444444", linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 8)
    axes.set_ylim(0, 1)
    axes.set_xlabel("loss among the answered, %")
    axes.set_title(name.replace(" with ", "\nwith "), fontsize=10)
    axes.grid(color="#eeeeee", linewidth=0.6)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("coverage in the last quarter\n(large: target 98%, small: 95%)")


if __name__ == "__main__":
    result = json.loads((ROOT / "benchmarks" / "results" / "selective.json").read_text())["figures"]
    draw(result, ROOT / "docs" / "selective.png")
