"""Selective serving: how much a student may answer at which risk, on simulated streams and on real ones.

    scripts/bench selective [--data FOLDER] [--processes 2] [--anew]     about half an hour on 2 free cores
    scripts/bench selective --short                                      some streams, short; writes nothing

Simulated: 500 streams of 10,000 pairs each, steady and drifting, where the truth is known (selective_streams). Real:
Banking77, CLINC150 and the `section` task through the rollout's own code, in random and in drifting order, at targets
of 98% and 95% (selective_replays). Beside ours on the same streams: CSA's rule and BARGAIN. FOLDER holds
banking77.jsonl.gz and clinc150.jsonl.gz; the section task's answers are in benchmarks/data. A part that is done is kept
in out/selective/ while what made it is the same (--anew makes all again). Writes benchmarks/results/selective.json and
docs/selective.png.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import kept_parts
import numpy as np
import results_file
import selective_replays as replays
import selective_streams as streams

ROOT = Path(__file__).resolve().parents[1]
SHORT = {"runs": 2, "batch runs": 1, "seeds": 1, "requests": 2_000}
FULL = {"runs": 500, "batch runs": 20, "seeds": 5, "requests": 20_000}
MADE_BY = (
    *sorted((ROOT / "router").glob("*.py")),
    *sorted((ROOT / "router" / "sequential").glob("*.py")),
    *(
        ROOT / "benchmarks" / f"selective_{name}.py"
        for name in ("streams", "rivals", "rollout", "encoder", "texts", "section")
    ),
    ROOT / "benchmarks" / "selective_replays.py",
)
# What an oracle threshold on a logistic head over MiniLM covers at 1% error, and Jevstiller's realised coverage.
PEERS = {"Banking77": (0.77, 0.617), "CLINC150 in scope": (0.90, 0.651)}


def costs(seeds: int, names: tuple[str, ...]) -> dict[str, float]:
    """Every part, with about how many seconds it takes."""
    found = {f"simulated: {name}": 80.0 for name in {**streams.STEADY, **streams.DRIFTING}}
    for name in names:
        found[f"route: {name}"] = 60.0
        for order in replays.ORDERS:
            for target in replays.TARGETS:
                found |= {f"{name}; {order}; {target}; {seed}": 15.0 for seed in range(seeds)}
    return found


def make(part: str, *, sizes: dict[str, int], data: Path) -> Any:
    """One part, by its name."""
    kind, _, name = part.partition(": ")
    if kind == "simulated":
        draw = {**streams.STEADY, **streams.DRIFTING}[name]
        return streams.simulate(draw, sizes["runs"], batch_runs=sizes["batch runs"])
    if kind == "route":
        return replays.population(name, data=data)
    name, order, target, seed = part.split("; ")
    return replays.streamed(name, order, replays.TARGETS[target], int(seed), data=data, requests=sizes["requests"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="make every part again")
    parser.add_argument("--short", action="store_true", help="some streams, short; write nothing")
    options = parser.parse_args()
    if options.short:
        figures = short()
        show(figures)
        return results_file.show("in short", judged(figures))
    with ProcessPoolExecutor(1) as alone:  # training takes all cores, and torch dislikes forks
        alone.submit(replays.prepare, options.data).result()
    key = kept_parts.digest(MADE_BY, FULL)
    _, results = kept_parts.run(
        "selective",
        costs(FULL["seeds"], replays.ROUTES),
        partial(make, sizes=FULL, data=options.data),
        key=key,
        processes=options.processes,
        anew=options.anew,
    )
    figures = gathered(results)
    show(figures)
    results_file.write("selective", figures, judged(figures))
    import selective_plots  # noqa: PLC0415 - heavy: matplotlib

    return selective_plots.draw(figures, ROOT / "docs" / "selective.png")


def short() -> dict[str, Any]:
    """The simulated streams and the section task, small, in this process."""
    return gathered({part: make(part, sizes=SHORT, data=Path()) for part in costs(SHORT["seeds"], ("section",))})


def gathered(results: dict[str, Any]) -> dict[str, Any]:
    """The parts' results as the figures: of the streams of one route, order and target, means and all decisions."""
    real: dict[str, dict[str, Any]] = {}
    seeds: dict[str, list[dict[str, Any]]] = {}
    for part, result in results.items():
        if part.startswith("route: "):
            real[part.removeprefix("route: ")] = {**result, "streams": {}}
        elif not part.startswith("simulated: "):
            seeds.setdefault(part.rpartition("; ")[0], []).append(result)
    for setting, each in seeds.items():
        name, order, target = setting.split("; ")
        real[name]["streams"][f"{order}, {target}"] = {
            rule: {
                figure: [one[rule][figure] for one in each] if figure == "decisions" else _mean(each, rule, figure)
                for figure in each[0][rule]
            }
            | {"agreement of each": [one[rule]["agreement"] for one in each]}
            for rule in each[0]
        }
    simulated = {p.removeprefix("simulated: "): r for p, r in results.items() if p.startswith("simulated: ")}
    return {"simulated": simulated, "real": real}


def judged(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals."""
    goal, simulated, real = results_file.goal, figures["simulated"], figures["real"]
    goals = []
    for kind, names in (("steady", streams.STEADY), ("drifting", streams.DRIFTING)):
        within = min(simulated[name]["Retort"]["runs with realised risk within"] for name in names)
        goals.append(goal(f"simulated, {kind}: least share of runs with realised risk <= eps", within, ">=", 0.95))
    of_oracle = {
        name: row["Retort"]["of the oracle's, mean"]
        for name in streams.STEADY
        if (row := simulated[name])["oracle's coverage"] > 0.0
    }
    for name, share in of_oracle.items():
        goals.append(goal(f"simulated, {name}: coverage of the oracle's after 10,000 pairs", share, ">=", 0.8))
    rollout = "through the rollout"
    for order in replays.ORDERS:
        runs = [
            float(agreement is None or agreement >= 1.0 - replays.TARGETS[target])
            for route in real.values()
            for target in replays.TARGETS
            for agreement in route["streams"][f"{order}, {target}"][rollout]["agreement of each"]
        ]
        goals.append(goal(f"real, {order} order: share of streams with realised risk <= eps", _share(runs), ">=", 0.95))
    for name, (oracle, relative) in PEERS.items():
        if name in real:
            covered = real[name]["streams"]["random, 98%"][rollout]["coverage at last"]
            goals.append(goal(f"{name}: realised coverage at target 98%", covered, ">=", relative))
            goals.append(
                goal(f"{name}: the same, of an oracle's on a plain head", round(covered / oracle, 3), ">=", 0.9)
            )
    for route in real.values():
        for setting, rules in route["streams"].items():
            if (leak := rules[rollout]["out of scope, answered"]) is not None:
                goals.append(goal(f"out of scope, answered by the student; {setting}", leak, "<=", 0.01))
    return goals


def show(figures: dict[str, Any]) -> None:
    """The tables, as text."""
    for name, row in figures["simulated"].items():
        print(name, {figure: value for figure, value in row.items() if not isinstance(value, dict)})
        for rule in ("Retort", "CSA's rule", "BARGAIN"):
            print(f"    {rule:12s} {row[rule]}")
    for name, route in figures["real"].items():
        print(f"{name}: {route['student']}; oracle {route['oracle']}")
        for setting, rules in route["streams"].items():
            print(f"  {setting}")
            for rule, found in rules.items():
                print(f"    {rule:36s} { {k: v for k, v in found.items() if not isinstance(v, list)} }")


def _mean(each: list[dict[str, Any]], rule: str, figure: str) -> float | None:
    known = [one[rule][figure] for one in each if one[rule][figure] is not None]
    return round(float(np.mean(known)), 4) if known else None


def _share(runs: list[float]) -> float:
    return round(float(np.mean(runs)), 4)


if __name__ == "__main__":
    main()
