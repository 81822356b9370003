"""`retort cycles [ROUTE]`: the training cycles, who or what started them, on which data, and what came of them."""

import time

import msgspec
from rich.console import Console
from rich.table import Table

from retort.errors import StartError
from retrainer.audit import Entry, entries
from router import Config


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
    table = Table(
        "began", "cycle", "reason", "who", "student", "data", "seed", "outcome", "s", box=None, pad_edge=False
    )
    for cycle, entry in last.items():
        table.add_row(
            time.strftime("%Y-%m-%d %H:%M", time.localtime(began[cycle])),
            cycle,
            entry.reason,
            f"{entry.who}@{entry.host}",
            f"{entry.base}, {entry.recipe}",
            (entry.dataset or "-").removeprefix("sha256:")[:12],
            str(entry.seed),
            (entry.outcome or "-") + (f": {entry.error}" if entry.error else ""),
            "-" if entry.seconds is None else f"{entry.seconds:.0f}",
        )
    console = Console(soft_wrap=True)
    console.print(table if last else "no cycle has begun yet")
    return 0
