"""The pictures of benchmarks/results/evidence.json.

.venv/bin/python benchmarks/evidence_plots.py     draws them again from the committed result
"""

import json
from pathlib import Path
from typing import Any

import evidence_nulls as pairs
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from evidence_cells import DISCORDANCE, TERNARY_MARGIN
from evidence_rules import ALPHA

from router.sequential import quality
from router.sequential.mixture import log_mean, mixture_logs

mpl.use("agg")

ROOT = Path(__file__).resolve().parents[1]
OURS, BROKEN = "#1f5fbf", "#7a7a7a"
# By the beginning of a rule's name: colour, marker.
LOOKS = {
    "betting": (OURS, "o"),
    "AIPW betting": (OURS, "o"),
    "binary SPRT": (OURS, "D"),
    "trinomial SPRT": (OURS, "s"),
    "z-test at every look": ("#e08214", "v"),
    "z-test at 100 looks": ("#e08214", "1"),
    "pooled ramp, once": ("#c51b1b", "x"),
    "pooled ramp, at every": ("#c51b1b", "+"),
    "best arm": ("#8e44ad", "^"),
    "5 intervals": ("#2e8b57", "P"),
    "k-th answers": ("#000000", "*"),
}
NAMES = {
    "betting": "Retort: betting",
    "AIPW betting": "Retort: betting",
    "binary SPRT": "Retort: binary SPRT",
    "trinomial SPRT": "Retort: trinomial SPRT",
    "pooled ramp, once": "two samples pooled over a ramp, judged once",
    "pooled ramp, at every": "two samples pooled over a ramp, at every look",
    "best arm": "best-arm stop, floor of 10 an arm",
    "5 intervals": "5 good intervals before 5 bad ones",
    "k-th answers": "k-th answer with k-th answer",
}
STREAMS = ["quality", "agreement", "SLO blocks", "paired latency", "errors", "outcomes"]
STUDENTS = (("equal", 0.0, "#2e8b57"), ("exactly at the margin (5 points worse)", 0.05, "#1f5fbf"),
            ("10 points worse", 0.10, "#c51b1b"))  # fmt: skip


def look_of(rule: str) -> str | None:
    """The entry of LOOKS that a rule is drawn by; e-detectors, which promise no rate, aren't."""
    return next((start for start in LOOKS if rule.startswith(start)), None)


def false_promotions(figures: dict[str, Any], file: Path) -> None:
    """A row a null: how often each rule promotes a student that is exactly at the boundary."""
    kept: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    for null in figures["nulls"]:
        tests = [rule for rule in null["rules"] if rule["kind"] == "test"]
        (broken if all(rule["broken"] for rule in tests) else kept).append(null)
    for nulls in (kept, broken):
        nulls.sort(key=lambda null: (STREAMS.index(null["stream"]), null["null"] != "i.i.d.", null["null"]))
    places = [*range(len(kept)), *range(len(kept) + 1, len(kept) + 1 + len(broken))]  # a free row above the broken
    figure, axes = plt.subplots(figsize=(11, 0.31 * len(places) + 2.9))
    drawn: dict[str, Any] = {}
    for y, null in zip(places, [*kept, *broken], strict=True):
        _row(axes, y, null, drawn)
    axes.axvline(100 * ALPHA, color="#444444", linestyle="--", linewidth=1)
    axes.text(100 * ALPHA + 0.6, -0.9, "alpha = 5%", color="#444444", fontsize=8, va="center")
    axes.set_yticks(places, [f"{null['stream']}: {null['null']}" for null in [*kept, *broken]], fontsize=8)
    axes.axhspan(len(kept) - 0.5, places[-1] + 0.5, color="#f0f0f0", zorder=0)
    axes.text(50, len(kept), "here each test's assumption is broken on purpose", fontsize=8, ha="center", va="center")
    axes.set_ylim(places[-1] + 0.5, -1.4)
    axes.set_xlim(-1.5, 101.5)
    axes.set_xlabel("runs in which a student exactly at the boundary is promoted, % (outcomes: is accused)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_title(f"Looked at after every observation, {kept[0]['looks']:,} of them, {kept[0]['paths']:,} paths a row")
    names = sorted(drawn, key=lambda name: not name.startswith("Retort"))
    handles = [drawn[name] for name in names]
    axes.legend(handles, names, fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.35, -0.045))
    _save(figure, file)


def _row(axes: Any, y: int, null: dict[str, Any], drawn: dict[str, Any]) -> None:
    """A null's marks; `drawn` collects one of each kind for the legend."""
    for rule in null["rules"]:
        start = look_of(rule["rule"])
        if start is None:
            continue
        colour, marker = LOOKS[start]
        hurt = bool(rule.get("broken"))
        style = {"marker": marker, "color": BROKEN if hurt else colour, "zorder": 3 if hurt else 4}
        apart = {"betting": -0.13, "AIPW betting": 0.0}.get(start, 0.13) if rule["kind"] == "test" else 0.0
        dots = axes.scatter(
            100 * rule["rate"], y + apart, s=42 if rule["kind"] == "test" else 34, linewidths=1.3, **style
        )
        name = "Retort, its assumption broken on purpose" if hurt else NAMES.get(start, start)
        drawn.setdefault(name, dots)


def paths_and_delays(figures: dict[str, Any], file: Path) -> None:
    """Evidence against its boundary; and how long harm goes unseen."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), gridspec_kw={"width_ratios": [1.25, 1]})
    _evidence(left)
    _delays(right, figures)
    _save(figure, file)


def _evidence(axes: Any) -> None:
    looks, each = 1000, 6
    for seed, (name, worse, colour) in enumerate(STUDENTS):
        discordance = max(DISCORDANCE, worse + 0.045)
        stream = pairs.iid(worse, discordance)(np.random.default_rng(seed), each, looks)
        factors = quality.passes(pairs.DIFFERENCES[stream.codes.T], TERNARY_MARGIN)
        values = np.exp(log_mean(mixture_logs(factors)).T)
        for path in range(each):
            label = f"student: {name}" if path == 0 else None
            until = np.argmax(values[:, path] >= 1 / ALPHA) + 1 if (values[:, path] >= 1 / ALPHA).any() else looks
            axes.plot(np.arange(1, until + 1), values[:until, path], color=colour, linewidth=1, alpha=0.8, label=label)
            if until < looks:
                axes.plot(until, values[until - 1, path], "o", color=colour, markersize=5)
    axes.axhline(1 / ALPHA, color="#444444", linestyle="--", linewidth=1)
    axes.text(looks, 1 / ALPHA * 1.15, "promoted at 1/alpha = 20", ha="right", fontsize=9, color="#444444")
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 2000)
    axes.set_xlim(0, looks)
    axes.set_xlabel("shadow pairs")
    axes.set_ylabel("evidence that it is within the margin (e-value)")
    axes.set_title("Evidence against its boundary, six students each, margin 5 points", fontsize=11)
    axes.legend(fontsize=9, loc="upper left")
    axes.grid(color="#e5e5e5", linewidth=0.6)


def _delays(axes: Any, figures: dict[str, Any]) -> None:
    detector = [row for row in figures["delays"] if row["detector"].startswith("quality, below the margin")]
    product = figures["one long product"]
    places, rested = np.arange(len(detector)), figures["delays"][0]["good before"]
    bars = (
        (-0.3, detector, "fresh", "#9dbce6", "e-detector (c = 3,000), from the first pair"),
        (-0.1, detector, "after good service", OURS, f"e-detector, after {rested:,} good pairs"),
        (0.1, product, "fresh", "#e3b9b9", "one long product at alpha = 5%, from the first pair"),
        (0.3, product, "after good service", "#c51b1b", f"one long product, after {rested:,} good pairs"),
    )
    for shift, rows, when, colour, label in bars:
        heights = [row[when]["median"] for row in rows]
        axes.bar(places + shift, heights, 0.19, color=colour, label=label)
        for x, height in zip(places + shift, heights, strict=True):
            axes.text(x, height * 1.07, f"{height:,.0f}", ha="center", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylim(1, 3_000_000)
    axes.set_xticks(places, [f"{row['case']}\n({100 * row['rate']:.0f}% lost)" for row in detector])
    axes.set_ylabel("median pairs from the change to the alarm")
    axes.set_title("How long harm goes unseen, margin 7 points", fontsize=11)
    axes.legend(fontsize=8.5, loc="upper right")


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    result = json.loads((ROOT / "benchmarks" / "results" / "evidence.json").read_text())["figures"]
    false_promotions(result, ROOT / "docs" / "evidence.png")
    paths_and_delays(result, ROOT / "docs" / "evidence_paths.png")
