"""What a comparison of recipes comes to: rows of means over seeds, and its goals.

The best of many cells with one seed each is mostly the luckiest. So the recipes that may be the best one on `section`
are named here, before they are measured: those with 3 seeds that learn the very examples that LoRA learns (`logits` is
one once it has 3), each by its mean. `adapters` (three tasks' examples), `ensemble` and `preference` (another student's
help) are in the table, and not in the goal. The best of five means is still a little lucky; LoRA's is one mean.

A student of closed answers gives each in one token: what it does in a second is `answers_per_second`, and what others
do, `tokens_per_second`.
"""

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any

import results_file
from recipes_tasks import TASKS

from retrainer.evaluation.calibrate import quality
from retrainer.evaluation.evaluate import Report
from router.policy_student import CLOSED

Rows = dict[str, dict[str, dict[str, float]]]

CANDIDATES, LEAST_SEEDS = ("encoder", "topk", "linear", "pruned", "logits"), 3


def calibration_error(report: Report) -> float | None:
    """Expected calibration error of p(answer) = exp(sum of its log probabilities): of the whole answer, so one that is
    right in part is wrong."""
    pairs = [(o.whole.total, float(o.value >= 1.0)) for o in report.outcomes if o.whole and o.value is not None]
    found = quality([min(math.exp(total), 1.0) for total, _ in pairs], [right for _, right in pairs])
    return None if found is None else found.ece


def table(cells: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Means over the seeds, and how many those are, by task and recipe."""
    found: Rows = {}
    for task in TASKS:
        names = dict.fromkeys(part.split("; ")[1] for part in cells if part.startswith(f"{task}; "))
        for name in names:
            rows = [row for part, row in cells.items() if part.startswith(f"{task}; {name}; ")]
            keys = [key for key in rows[0] if key != "made_by" and all(row.get(key) is not None for row in rows)]
            means = {key: mean(row[key] for row in rows) for key in keys}
            if name in CLOSED and "tokens_per_second" in means:
                means["answers_per_second"] = means.pop("tokens_per_second")
            found.setdefault(task, {})[name] = {"seeds": len(rows), **means}
    return found


def goals(rows: Rows) -> list[dict[str, Any]]:
    """Of those cells that there are."""
    found, sample, section = [], rows.get("community", {}), rows.get("section", {})
    for task, of in rows.items():
        if {"teacher", "pruned"} <= of.keys():
            name, share = f"pruned half on {task}", of["pruned"]["agreement"] / of["teacher"]["agreement"]
            found.append(results_file.goal(f"{name}: of the teacher's agreement", share, ">=", 0.95))
            found.append(results_file.goal(f"{name}: times the teacher's speed", of["pruned"]["speed"], ">=", 1.8))
    found += [
        results_file.goal(f"{name} on {task}: times the teacher's speed", of[name]["speed"], ">=", 100)
        for task, of in rows.items()
        for name in CLOSED
        if {"teacher", name} <= of.keys()
    ]
    int4 = [row["agreement"] for name, row in sample.items() if name.endswith("@int4")]
    if "teacher" in sample and int4:
        found.append(
            results_file.goal(
                "best int4 on community: of the teacher's agreement",
                max(int4) / sample["teacher"]["agreement"],
                ">=",
                0.97,
            )
        )
        own = "best int4 on community: agreement with the task's own answers"
        found.append(results_file.goal(own, max(int4), ">=", 0.97))
    seeded = {name: row for name, row in section.items() if row["seeds"] >= LEAST_SEEDS}
    others = {name: seeded[name]["agreement"] for name in CANDIDATES if name in seeded}
    if "lora" in seeded and others:
        best = max(others, key=lambda name: others[name])
        gained = 100 * (others[best] - seeded["lora"]["agreement"])
        found.append(results_file.goal(f"best recipe on section ({best}): points above LoRA", gained, ">=", 2.0))
    return found
