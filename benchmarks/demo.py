"""`retort demo`, as a benchmark: the whole loop on real input, from an empty folder.

    scripts/bench demo [--runs 1] [--resume]

Writes benchmarks/results/demo.json (of the median run, by time) and docs/demo.png.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import results_file

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="take the runs that ended well before, in out/")
    options = parser.parse_args()
    runs = []
    for n in range(options.runs):
        folder = ROOT / "out" / f"demo-{n}"
        result = folder.with_suffix(".json")
        if not (options.resume and result.exists() and json.loads(result.read_text())["complete"]):
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, "-m", "retort", "demo", "--dir", str(folder), "--json", str(result)]
            subprocess.run(command, check=False, cwd=ROOT)
        run = json.loads(result.read_text())
        if "error" in run:
            raise SystemExit(f"run {n} did not come to its end: {run['error']}")
        runs.append((run, folder / "demo.png"))
    runs.sort(key=lambda run: run[0]["seconds"])
    report(runs[len(runs) // 2][0], runs[len(runs) // 2][1], [run["seconds"] for run, _ in runs])


def report(run: dict, picture: Path, seconds: list[float]) -> None:
    """The result of the median run."""
    goal = results_file.goal
    agreement = run["agreement"]
    goals = [
        goal("promoted to live by evidence", run["promoted"], "==", 1),
        goal("bad candidate rejected in shadow", run["rejected_in_shadow"]["rejected"], "==", 1),
        goal("users served by the bad candidate", run["rejected_in_shadow"]["users_served"], "==", 0),
        goal("rolled back when wrong", run["rolled_back"]["wrong"], "==", 1),
        goal("rolled back when failing", run["rolled_back"]["failing"], "==", 1),
        goal("failed requests", run["failed_requests"], "==", 0),
        goal("held-out records", agreement["n"], ">=", 1000),
        goal("agreement of the untrained base", agreement["base"], "<=", 0.05),
        goal("agreement of the student", agreement["student"], ">=", 0.95),
        goal("agreement lost by quantizing", round(agreement["student"] - agreement["quantized"], 4), "<=", 0.01),
        goal("valid JSON", run["valid_json"], ">=", 0.99),
        goal("decisions reproduced by replay", run["replay_reproduces"], "==", 1),
        goal("median seconds", run["seconds"], "<=", 1200),
        goal("worst seconds", max(seconds), "<=", 1800),
    ]
    results_file.write("demo", {**run, "seconds_of_each_run": seconds}, goals)
    shutil.copy(picture, ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    main()
