"""A card's pictures, as PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrainer.card.content import MOST_CLUSTERS, Point
from retrainer.evaluation.clusters import Cluster
from retrainer.ladder import Step, costs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 20  # steps of a moving mean


def learning(losses: Sequence[float], looks: Sequence[tuple[int, float]], best: int | None) -> bytes:
    """The loss of each step, and its moving mean; the validation loss at the `looks` [step, loss], with the `best`
    step, whose weights were taken."""

    def draw(axis: "Axes") -> None:
        axis.plot(range(1, len(losses) + 1), losses, color="0.75", linewidth=0.8, label="a step")
        if len(losses) >= WINDOW:
            means = [sum(losses[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(losses))]
            axis.plot(range(1, len(losses) + 1), means, linewidth=1.6, label=f"mean of {WINDOW} steps")
        if looks:
            axis.plot([step for step, _ in looks], [loss for _, loss in looks], "o-", markersize=4, label="validation")
        if best is not None:
            axis.axvline(best, color="0.4", linestyle=":", linewidth=1, label=f"taken: step {best}")
        axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
        axis.legend()

    return _png(draw)


def by_cluster(found: Sequence[Cluster]) -> bytes:
    """Agreement with its interval, the weakest on top."""
    shown = list(reversed(found[:MOST_CLUSTERS]))

    def draw(axis: "Axes") -> None:
        for place, cluster in enumerate(shown):
            axis.plot([cluster.lower, cluster.upper], [place, place], color="0.6", linewidth=3, solid_capstyle="butt")
            axis.plot(cluster.agreement, place, "o", color="C0")
        axis.set_yticks(range(len(shown)), [f"{_short(c.name)} ({c.n})" for c in shown], fontsize=8, parse_math=False)
        axis.set(xlabel="agreement with the teacher", xlim=(-0.02, 1.02))

    return _png(draw, height=1.2 + 0.32 * len(shown))


def calibration(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """A reliability diagram: mean score against mean confidence of each tenth; a dot's area grows with its records."""

    def draw(axis: "Axes") -> None:
        axis.plot([0, 1], [0, 1], ":", color="black", linewidth=0.8)
        for name, bins in curves.items():
            places = [b["confidence"] for b in bins], [b["score"] for b in bins]
            most = max((b["n"] for b in bins), default=1)
            axis.scatter(*places, s=[12 + 150 * b["n"] / most for b in bins], alpha=0.7, linewidths=0, label=name)
        axis.set(xlabel="confidence", ylabel="agreement", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, markerscale=0.7)

    return _png(draw, height=4.2)


def sizes(points: Sequence[Point]) -> bytes:
    """Quality against size, of the route's versions; this one filled."""
    largest = max(p.megabytes for p in points)

    def draw(axis: "Axes") -> None:
        for point in points[:-1]:
            axis.plot(point.megabytes, point.quality, "o", color="C0", fillstyle="none")
        axis.plot(points[-1].megabytes, points[-1].quality, "o", color="C0")
        for n, point in enumerate(points[-10:]):
            axis.annotate(
                point.version,
                (point.megabytes, point.quality),
                (-4, -12 - 10 * (n % 3)),
                textcoords="offset points",
                fontsize=7,
                ha="right" if point.megabytes > 0.5 * largest else "left",
                parse_math=False,
            )
        axis.set(xlabel="size in MB", ylabel="agreement as served", xlim=(0, 1.1 * largest))
        lowest = min(p.quality for p in points)
        axis.set_ylim(lowest - 0.1, 1.01)

    return _png(draw, height=3.5)


def ladder(steps: Sequence[Step]) -> bytes:
    """Agreement with its interval against what answers cost, of the rungs that were timed; the frontier is a line."""
    unit, found = costs(steps)
    timed = [(step, cost) for step, cost in zip(steps, found, strict=True) if cost is not None]

    def draw(axis: "Axes") -> None:
        best = sorted((cost, s.agreement) for s, cost in timed if s.frontier)
        axis.step([cost for cost, _ in best], [agreement for _, agreement in best], where="post", color="0.6", zorder=0)
        for step, cost in timed:
            axis.plot([cost, cost], [step.lower, step.upper], color="0.6", linewidth=3, solid_capstyle="butt")
            axis.plot(cost, step.agreement, "o", color="C0", fillstyle="full" if step.frontier else "none")
            axis.annotate(
                step.rung, (cost, step.agreement), (6, 4), textcoords="offset points", fontsize=8, parse_math=False
            )
        axis.set(xlabel=unit, ylabel="agreement as served", xscale="log")
        axis.margins(x=0.25)

    return _png(draw, height=3.5)


def _png(draw: "Callable[[Axes], None]", *, height: float = 3.2) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy: only a cycle pays for it
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

    figure = Figure(figsize=(7, height), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:39]}…"
