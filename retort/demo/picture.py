"""The demo's picture: evidence against its boundary, alarms against theirs, and who answered, over requests."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.models import write_atomic
from retort.demo.outcome import Outcome
from retort.demo.traffic import Sent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 40


def draw(outcome: Outcome, path: Path) -> None:
    """Write the picture as PNG, atomically."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy: only the demo's end needs it

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(3, 1, figsize=(11, 11), sharex=True, constrained_layout=True)
    start = _first_of_evidence(outcome)
    _rows(axes[0], outcome, "tests", "evidence for the student (1 = proven)", start)
    _rows(axes[1], outcome, "alarms", "evidence of harm (1 = alarm)", start)
    _share(axes[2], outcome.sent[start:], start, outcome)
    _decisions(axes, outcome, start)
    axes[2].set_xlabel("requests sent")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _decisions(axes: "Sequence[Axes]", outcome: Outcome, start: int) -> None:
    """A line at each decision, its number above the first panel, and below the last what the numbers mean."""
    least = (len(outcome.sent) - start) / 45  # so that no two numbers overlap
    shown, meant, names = -math.inf, [], _names(outcome)
    for number, decision in enumerate(outcome.decisions, start=1):
        at = sum(s.at <= decision.at for s in outcome.sent)
        for axis in axes:
            axis.axvline(at, color="0.8", linewidth=0.8, zorder=0)
        shown = max(at, shown + least)
        axes[0].annotate(str(number), (shown, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=9)
        who = names.get(decision.version, decision.version)
        meant.append(f"{number}  {who}: {decision.before.value} -> {decision.after.value} ({decision.cause})")
    half = (len(meant) + 1) // 2
    for column, lines in ((0.0, meant[:half]), (0.5, meant[half:])):
        axes[2].text(column, -0.2, "\n".join(lines), transform=axes[2].transAxes, va="top", fontsize=8)


def _names(outcome: Outcome) -> dict[str, str]:
    return {outcome.student: "student", outcome.twin: "twin", outcome.bad: "bad candidate"}


def _first_of_evidence(outcome: Outcome) -> int:
    return min((m.requests for m in outcome.moments if m.challenger), default=0)


def _rows(axis: "Axes", outcome: Outcome, group: str, label: str, start: int) -> None:
    """Each series as a share of its own boundary, so that all reach 1."""
    moments = [m for m in outcome.moments if m.requests >= start]
    keys = sorted({key for m in moments for key in getattr(m, group)})
    names = _names(outcome)
    for key in keys:
        version, _, name = key.partition(" ")
        points = [(m.requests, *getattr(m, group)[key]) for m in moments if key in getattr(m, group)]
        style = "-" if version == outcome.student else "--"
        shares = [max(value / boundary, -0.5) for _, value, boundary in points]
        axis.plot(
            [x for x, _, _ in points], shares, style, label=f"{names.get(version, version)}: {name}", linewidth=1.2
        )
    axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylim(-0.55, 1.6)
    axis.set_ylabel(label)
    axis.legend(fontsize=7, ncols=3, loc="upper left")


def _share(axis: "Axes", sent: Sequence[Sent], start: int, outcome: Outcome) -> None:
    """Who answered, and how many answers were right, over a moving window."""
    xs = range(start, start + len(sent))
    for label, hits in (
        ("answered by the student", [s.served_by == outcome.student for s in sent]),
        ("answered by its twin", [s.served_by == outcome.twin for s in sent]),
        ("answered by the bad candidate", [s.served_by == outcome.bad for s in sent]),
        ("right answers", [s.right for s in sent]),
    ):
        means = [sum(hits[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(hits))]
        axis.plot(xs, means, label=label, linewidth=1.2)
    axis.set_ylim(-0.03, 1.08)
    axis.set_ylabel(f"share of the last {WINDOW} requests")
    axis.legend(fontsize=7, loc="upper left")
