"""`retort cycles [ROUTE]`: the training cycles, who or what started them, on which data, and what came of them."""

import time
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from retort.errors import StartError
from retrainer import Cycles
from retrainer.audit import Entry, entries
from retrainer.ladder import Step
from router import Config

WIDE = 1000  # columns


def cycles(config: Config, route: str | None, *, as_json: bool) -> int:
    """Print them, oldest first; returns 0. Raises StartError."""
    if route is not None and route not in config.routes:
        raise StartError(f"no route {route!r}; the configuration has: {', '.join(sorted(config.routes))}")
    found = [entry for entry in entries(config.state) if route in (None, entry.route)]
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return 0
    last: dict[str, Entry] = {}
    began: dict[str, float] = {}
    for entry in found:
        began.setdefault(entry.cycle, entry.at)
        last[entry.cycle] = entry
    table = Table(box=None, pad_edge=False)
    for name in ("began", "cycle", "reason", "who", "student", "data", "seed", "outcome", "s"):
        table.add_column(name, no_wrap=True, overflow="ignore")
    standing = Cycles(config.state).standing
    for cycle, entry in last.items():
        table.add_row(
            time.strftime("%Y-%m-%d %H:%M", time.localtime(began[cycle])),
            cycle,
            entry.reason,
            f"{entry.who}@{entry.host}",
            f"{entry.base}, {entry.recipe}",
            (entry.dataset or "-").removeprefix("sha256:")[:12],
            str(entry.seed),
            entry.outcome or ((at := standing(cycle)) and at.said) or "-",
            "-" if entry.seconds is None else f"{entry.seconds:.0f}",
        )
    console = Console(width=WIDE, soft_wrap=True)  # a terminal wraps what it can't show, and a pipe has it whole
    console.print(table if last else "no cycle has begun yet")
    for cycle, entry in last.items():
        if entry.error:
            console.print(f"{cycle}: {entry.error}", markup=False, highlight=False)
    for cycle, entry in last.items():
        if len(entry.ladder) > 1:
            console.print("", _ladder(cycle, entry.ladder))
    return 0


def _ladder(cycle: str, steps: Sequence[Step]) -> Table:
    table = Table(
        "rung", "agreement (95% interval)", "ms", "USD per 1,000", "MB", "frontier", "outcome",
        title=f"students of {cycle}, cheap to dear", box=None, pad_edge=False,
    )  # fmt: skip
    for step in steps:
        table.add_row(
            step.rung,
            f"{step.agreement:.1%} ({step.lower:.1%} - {step.upper:.1%})",
            "-" if step.ms is None else f"{step.ms:.1f}",
            "-" if step.usd_per_1000 is None else f"{step.usd_per_1000:.4f}",
            "-" if step.bytes is None else f"{step.bytes / 1e6:.1f}",
            "yes" if step.frontier else "",
            f"passed ({step.mode})" if step.passed else "refused",
        )
    return table
