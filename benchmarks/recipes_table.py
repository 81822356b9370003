"""What a comparison of recipes comes to: rows of means over seeds, and its goals.

The best of many cells with one seed each is mostly the luckiest. So the recipes that may be the best one on `section`
are named here, before they are measured: those with 3 seeds that learn the very examples that LoRA learns (`logits` is
one once it has 3), each by its mean. `adapters` (three tasks' examples), `ensemble` and `preference` (another student's
help) are in the table, and not in the goal. The best of five means is still a little lucky; LoRA's is one mean.

Raw tokens a second are whatever else the machine did; a row's are its cells' `speed`, which is measured by turns, times
those of its task's teacher, as if its answers were as long. A student of closed answers has none.
"""

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

import results_file
from recipes_tasks import TASKS

from retrainer.evaluation.calibrate import quality
from retrainer.evaluation.evaluate import Report
from retrainer.recipes import RECIPES
from router.policy_student import CLOSED

Rows = dict[str, dict[str, dict[str, float]]]

SEEDED, SEEDS = ("lora", "topk", "pruned", "linear", "encoder"), 3
ORIGIN = ("made_by", "date", "cpu")  # of a cell, beside its figures
CANDIDATES, LEAST_SEEDS = ("encoder", "topk", "linear", "pruned", "logits"), 3


def asked_for() -> list[str]:
    """Every cell, `task; recipe; seed`; a task's teacher first."""
    found = []
    for task in TASKS:
        found.append(f"{task}; teacher; 0")
        for name in (*RECIPES, "lora@int4", "quantized@int4", "unrounded@int4"):
            if name != "quantized":  # it is `quantized@int4`
                found += [f"{task}; {name}; {seed}" for seed in range(SEEDS if name in SEEDED else 1)]
    return found


def calibration_error(report: Report) -> float | None:
    """Expected calibration error of p(answer) = exp(sum of its log probabilities), against whether the whole answer is
    right: a probability of three fields together says nothing of one of them."""
    pairs = [(o.whole.total, float(o.value >= 1.0)) for o in report.outcomes if o.whole and o.value is not None]
    found = quality([min(math.exp(total), 1.0) for total, _ in pairs], [value for _, value in pairs])
    return None if found is None else found.ece


def known(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Cells with their `calibration`. An `ece` was measured against shares of the fields, which are 0 or 1 where an
    answer has one field; of `fields` it is unknown."""
    found = {}
    for part, cell in cells.items():
        kept = {"calibration" if key == "ece" else key: value for key, value in cell.items()}
        if "ece" in cell and part.startswith("fields; "):
            kept["calibration"] = None
        found[part] = kept
    return found


def table(cells: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Means over the seeds, and how many those are, by task and recipe."""
    found: Rows = {}
    for task in TASKS:
        names = dict.fromkeys(part.split("; ")[1] for part in cells if part.startswith(f"{task}; "))
        for name in names:
            rows = [row for part, row in cells.items() if part.startswith(f"{task}; {name}; ")]
            keys = [key for key in rows[0] if key not in ORIGIN and all(row[key] is not None for row in rows)]
            found.setdefault(task, {})[name] = {
                "seeds": len(rows),
                **{key: mean(row[key] for row in rows) for key in keys},
            }
        for name, row in found.get(task, {}).items():
            if name == "teacher":
                continue
            row.pop("tokens_per_second", None)
            if name not in CLOSED and "teacher" in names:
                row["tokens_per_second"] = row["speed"] * found[task]["teacher"]["tokens_per_second"]
    return found


def twins(cells: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """The speeds, in order, of those students whose graph has the very size of the teacher's: the same work."""
    teachers = {part.split("; ")[0]: cell for part, cell in cells.items() if part.split("; ")[1] == "teacher"}
    same = (
        cell["speed"]
        for part, cell in cells.items()
        if part.split("; ")[1] != "teacher" and cell["bytes"] == teachers.get(part.split("; ")[0], {}).get("bytes")
    )
    return sorted(same)


def versions(cells: Mapping[str, Mapping[str, Any]], task: str) -> tuple[int, list[str]]:
    """Of how many versions of the code a task's cells are, and the recipes whose seeds are of more than one."""
    by_name: dict[str, set[str]] = {}
    for part, cell in cells.items():
        of, name, _ = part.split("; ")
        if of == task:
            by_name.setdefault(name, set()).add(cell["made_by"])
    return len(set().union(*by_name.values())), [name for name, made in by_name.items() if len(made) > 1]


def goals(rows: Rows) -> list[dict[str, Any]]:
    """How many cells there are; of those there are, the others, of a share of the teacher for each task that has it."""
    there = sum(int(row["seeds"]) for by_name in rows.values() for row in by_name.values())
    found = [results_file.goal("cells measured", there, ">=", len(asked_for()))]
    for task, by_name in rows.items():
        if "teacher" in by_name:
            found += _against_teacher(task, by_name)
    section = rows.get("section", {})
    seeded = {name: row for name, row in section.items() if row["seeds"] >= LEAST_SEEDS}
    others = {name: seeded[name]["agreement"] for name in CANDIDATES if name in seeded}
    if "lora" in seeded and others:
        best = max(others, key=lambda name: others[name])
        gained = 100 * (others[best] - seeded["lora"]["agreement"])
        found.append(results_file.goal(f"section: best recipe ({best}), points above LoRA", gained, ">=", 2.0))
    return found


def _against_teacher(task: str, rows: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    found, teacher = [], rows["teacher"]["agreement"]
    if "pruned" in rows:
        half = rows["pruned"]
        share = half["agreement"] / teacher
        found.append(results_file.goal(f"{task}: pruned half, of the teacher's agreement", share, ">=", 0.95))
        found.append(results_file.goal(f"{task}: pruned half, times the teacher's speed", half["speed"], ">=", 1.8))
    if int4 := [row["agreement"] for name, row in rows.items() if name.endswith("@int4")]:
        share = max(int4) / teacher
        found.append(results_file.goal(f"{task}: best int4, of the teacher's agreement", share, ">=", 0.97))
        if task == "community":  # of the others the teacher itself is below that
            found.append(results_file.goal(f"{task}: best int4, agreement", max(int4), ">=", 0.97))
    for name in CLOSED:
        if name in rows:
            found.append(
                results_file.goal(f"{task}: {name}, times the teacher's speed", rows[name]["speed"], ">=", 100.0)
            )
    return found
