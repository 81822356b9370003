"""What every benchmark writes: benchmarks/results/NAME.json with machine, date, figures and goals."""

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporters.models import write_atomic

FOLDER = Path(__file__).resolve().parent / "results"
_HOLDS = {"<=": float.__le__, ">=": float.__ge__, "<": float.__lt__, ">": float.__gt__, "==": float.__eq__}


def goal(name: str, value: float, op: str, wanted: float) -> dict[str, Any]:
    """One goal, and whether it is met."""
    return {"name": name, "value": value, "op": op, "goal": wanted, "met": _HOLDS[op](float(value), float(wanted))}


def made() -> dict[str, str]:
    """When and where, for a part that is kept."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": _cpu()}


def write(name: str, figures: Any, goals: list[dict[str, Any]]) -> None:
    """Write a result, atomically, and print its goals."""
    machine = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = {"machine": machine, "date": date, "figures": figures, "goals": goals}
    FOLDER.mkdir(exist_ok=True)
    write_atomic(FOLDER / f"{name}.json", (json.dumps(result, indent=2) + "\n").encode())
    show(name, goals)


def again(name: str, make: Callable[[Any], tuple[Any, list[dict[str, Any]]]]) -> None:
    """Figures and goals of a written result, as `make` has them of its figures; machine and date stay."""
    file = FOLDER / f"{name}.json"
    result = json.loads(file.read_text())
    result["figures"], result["goals"] = make(result["figures"])
    write_atomic(file, (json.dumps(result, indent=2) + "\n").encode())


def show(name: str, goals: list[dict[str, Any]]) -> None:
    """A line a goal."""
    for g in goals:
        print(f"{name:14s} {'met   ' if g['met'] else 'MISSED'} {g['name']}: {g['value']} {g['op']} {g['goal']}")


def asked(goals: list[dict[str, Any]]) -> str:
    """A page's section: what was asked, and whether it was reached."""
    lines = [
        f"| {g['name']} | {g['op']} {g['goal']:g} | {g['value']:.4g} | {'yes' if g['met'] else '**no**'} |\n"
        for g in goals
    ]
    return "\n## What was asked\n\n| | asked | found | reached |\n|---|--:|--:|---|\n" + "".join(lines)


def show_all() -> None:
    """Every goal of every committed result."""
    for file in sorted(FOLDER.glob("*.json")):
        show(file.stem, json.loads(file.read_text())["goals"])


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    show_all()
