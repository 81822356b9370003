"""What a comparison of recipes comes to: rows of means over seeds, and its goals."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

import results_file
import torch
from recipes_tasks import TASKS

from retrainer.evaluation.evaluate import Report

Rows = dict[str, dict[str, dict[str, float]]]


def calibration_error(report: Report, bins: int = 10) -> float | None:
    """Expected calibration error (Guo et al. 2017, equal widths) of p(answer) = exp(sum of its log probabilities)."""
    pairs = [(o.whole.total, o.value) for o in report.outcomes if o.whole and o.value is not None]
    if not pairs:
        return None
    sure = torch.tensor([total for total, _ in pairs]).exp().clamp(max=1.0)
    right = torch.tensor([float(value) for _, value in pairs])
    which = (sure * bins).long().clamp(max=bins - 1)
    found = 0.0
    for one in which.unique():
        here = which == one
        found += float(here.float().mean()) * abs(float(sure[here].mean() - right[here].mean()))
    return found


def table(cells: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Means over the seeds, by task and recipe."""
    found: Rows = {}
    for task in TASKS:
        names = dict.fromkeys(part.split("; ")[1] for part in cells if part.startswith(f"{task}; "))
        for name in names:
            rows = [row for part, row in cells.items() if part.startswith(f"{task}; {name}; ")]
            keys = [key for key in rows[0] if key != "made_by" and all(row[key] is not None for row in rows)]
            found.setdefault(task, {})[name] = {key: mean(row[key] for row in rows) for key in keys}
    return found


def goals(rows: Rows) -> list[dict[str, Any]]:
    """Of those cells that there are."""
    found, sample, section = [], rows.get("community", {}), rows.get("section", {})
    if {"teacher", "pruned"} <= sample.keys():
        half, teacher = sample["pruned"], sample["teacher"]
        found.append(
            results_file.goal(
                "pruned half: of the teacher's agreement", half["agreement"] / teacher["agreement"], ">=", 0.95
            )
        )
        found.append(results_file.goal("pruned half: times the teacher's speed", half["speed"], ">=", 1.8))
    int4 = [row["agreement"] for name, row in sample.items() if name.endswith("@int4")]
    if "teacher" in sample and int4:
        found.append(
            results_file.goal(
                "best int4: of the teacher's agreement", max(int4) / sample["teacher"]["agreement"], ">=", 0.97
            )
        )
    others = [row["agreement"] for name, row in section.items() if name not in ("lora", "teacher")]
    if "lora" in section and others:
        gained = 100 * (max(others) - section["lora"]["agreement"])
        found.append(results_file.goal("best recipe on section: points above LoRA", gained, ">=", 2.0))
    return found
