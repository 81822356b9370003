"""The proof by simulation: a student exactly at the margin, every observation looked at, and how often it is promoted.

    scripts/bench evidence [--paths 20000] [--processes 2] [--anew]     about 10 minutes on 2 free cores
    scripts/bench evidence --short                                      200 paths, half a minute, writes nothing

Each of Retort's tests meets each null where it applies, and beside it, on the same paths, what is commonly done
instead. Then: the samples that a good student needs, and how soon harm is seen. A part that is done is kept in
out/evidence/ and taken from there while the code that made it is the same (--anew forgets it). Writes
benchmarks/results/evidence.json, docs/evidence.png (false promotions) and docs/evidence_paths.png.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import evidence_cells
import evidence_harm
import evidence_samples
import kept_parts
import results_file
from evidence_rules import Cell

ROOT = Path(__file__).resolve().parents[1]
MADE_BY = (
    *sorted((ROOT / "router" / "sequential").glob("*.py")),
    *(ROOT / "router" / f"policy_{name}.py" for name in ("quality", "rollout")),
    ROOT / "gateway" / "hard_stop.py",
    *(
        ROOT / "benchmarks" / f"evidence_{name}.py"
        for name in ("walk", "nulls", "nulls_latency", "rivals", "rules", "cells")
    ),
    *(ROOT / "benchmarks" / f"evidence_{name}.py" for name in ("samples", "harm")),
)


@dataclass(frozen=True)
class Sizes:
    """How much is simulated: paths and looks of each part."""

    paths: int = 20_000
    looks: int = 5_000
    samples: int = 4_000
    sample_looks: int = 25_000
    agreement_looks: int = 12_000
    delays: int = 2_000
    good_time: int = 20_000
    products: int = 200
    runs: int = 3_000
    run_looks: int = 50_000
    stops: int = 400


SHORT = Sizes(
    paths=200, samples=200, sample_looks=6_000, agreement_looks=3_000, delays=100, good_time=2_000, products=20,
    runs=200, run_looks=5_000, stops=20,
)  # fmt: skip

Part = Callable[[Sizes], Any]


def parts(sizes: Sizes) -> dict[str, tuple[float, Part]]:
    """By name: about how many seconds it takes, and what makes it. The longest first."""
    found: dict[str, tuple[float, Part]] = {
        "null: " + cell.name: (cell.cost * sizes.paths * sizes.looks / 1e6, _counting(cell))
        for cell in evidence_cells.every()
    }
    harm, samples = evidence_harm, evidence_samples
    found["equal students"] = (45.0, lambda s: samples.equal_students(s.samples, s.sample_looks))
    found["agreeing students"] = (40.0, lambda s: samples.agreeing_students(s.samples, s.agreement_looks))
    found["delays"] = (90.0, lambda s: harm.delays(s.delays, s.good_time))
    found["one long product"] = (10.0, lambda s: harm.one_long_product(s.products, s.good_time))
    found["run lengths"] = (25.0, lambda s: harm.run_lengths(s.runs, s.run_looks))
    found["hard stop"] = (6.0, lambda s: harm.hard_stops(s.stops, s.good_time))
    return dict(sorted(found.items(), key=lambda part: -part[1][0]))


def _counting(cell: Cell) -> Part:
    return lambda sizes: evidence_cells.count(cell, sizes.paths, sizes.looks)


def make(name: str, sizes: Sizes) -> Any:
    """One part. Runs in a process of its own, so a part travels by its name."""
    return parts(sizes)[name][1](sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=Sizes().paths)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="make every part again")
    parser.add_argument("--short", action="store_true", help="200 paths; write nothing")
    options = parser.parse_args()
    if options.short:
        seconds, figures = short()
    else:
        seconds, figures = full(Sizes(paths=options.paths), options.processes, anew=options.anew)
    show(figures)
    goals = judged(figures, seconds / 60)
    if options.short:
        results_file.show("in short", [goal for goal in goals if goal["name"] != "paths a null"])
        return
    import evidence_plots  # noqa: PLC0415 - heavy: matplotlib

    results_file.write("evidence", figures, goals)
    evidence_plots.false_promotions(figures, ROOT / "docs" / "evidence.png")
    evidence_plots.paths_and_delays(figures, ROOT / "docs" / "evidence_paths.png")


def short() -> tuple[float, dict[str, Any]]:
    """Everything, small, in this process: (seconds, figures)."""
    done = {name: kept_parts.timed(partial(make, sizes=SHORT), name) for name in parts(SHORT)}
    return sum(took for took, _ in done.values()), gathered({name: result for name, (_, result) in done.items()})


def full(sizes: Sizes, processes: int, *, anew: bool) -> tuple[float, dict[str, Any]]:
    """Everything, with parts that are kept; the seconds are the parts' own, divided by the processes."""
    costs = {name: cost for name, (cost, _) in parts(sizes).items()}
    key = kept_parts.digest(MADE_BY, asdict(sizes))
    seconds, results = kept_parts.run(
        "evidence", costs, partial(make, sizes=sizes), key=key, processes=processes, anew=anew
    )
    return seconds, gathered(results)


def gathered(results: dict[str, Any]) -> dict[str, Any]:
    """The parts' results as the figures of the benchmark."""
    nulls = [results[name] for name in results if name.startswith("null: ")]
    return {"nulls": nulls, **{name: results[name] for name in results if not name.startswith("null: ")}}


def judged(figures: dict[str, Any], minutes: float) -> list[dict[str, Any]]:
    """The goals."""
    goal = results_file.goal
    tests = [rule for null in figures["nulls"] for rule in null["rules"] if rule["kind"] == "test"]
    refuted = sum(rule["refutes"] for rule in tests if not rule["broken"])
    goals = [
        goal("nulls that refute alpha where the assumption holds", refuted, "==", 0),
        goal("paths a null", min(null["paths"] for null in figures["nulls"]), ">=", 20_000),
        goal("looks a path", min(null["looks"] for null in figures["nulls"]), ">=", 5_000),
    ]
    for row in figures["equal students"]:
        sprt = row.get("trinomial SPRT, discordance known")
        if sprt and row["discordance"] == evidence_cells.DISCORDANCE:
            ratio = round(row["betting"]["median"] / sprt["median"], 2)
            goals.append(goal(f"betting's median over the trinomial SPRT's, d = {row['margin']}", ratio, "<=", 2.2))
    for row in figures["delays"]:
        if row["detector"].startswith("quality, below the margin") and row["case"] in ("20 points beyond", "dead"):
            wanted = 20 if row["case"] == "dead" else 100
            for when in ("fresh", "after good service"):
                goals.append(
                    goal(f"median pairs until the alarm, {row['case']}, {when}", row[when]["median"], "<=", wanted)
                )
    dead = max(row["most"] for row in figures["hard stop"] if row["failing"] == 1.0)
    goals.append(goal("requests a worker gives a dead student before its hard stop", dead, "<=", 20))
    goals.append(goal("minutes on the cores used", round(minutes, 1), "<=", 30))
    return goals


def show(figures: dict[str, Any]) -> None:
    """The tables, as text."""
    for null in figures["nulls"]:
        print(f"{null['stream']}: {null['null']}")
        for rule in null["rules"]:
            note = f"broken on purpose: {rule['broken']}" if rule.get("broken") else ""
            mark = "REFUTES" if rule.get("refutes") else ""
            print(f"    {rule['kind']:8s} {rule['rule']:42s} {100 * rule['rate']:6.2f}%  {mark:8s}{note}")
    for name, rows in figures.items():
        for row in rows if name != "nulls" else []:
            print(f"{name}: {json.dumps(row)}")


if __name__ == "__main__":
    main()
