"""Closed answers: how many requests a student answers that chooses among few, how right, how fast, and by which rung.

    scripts/bench closed [--data ../shared/data] [--only banking77-linear ...] [--examples 1200 5000 15800]
    scripts/bench closed --again        goals, table and picture of the committed figures; measures nothing

Banking77 and CLINC150 through the real gateway and engine: the threshold is chosen on validation queries (the loosest
at which as likely as not 99.4% of those above it agree), and the test queries are asked for once; times are of a second
pass, in which the student answers all but the novel. The nearest relative is Jevstiller 0.5, by its own figures: 61.7%
of Banking77 answered locally at 99.40% agreement, 65.1% of CLINC150 at 99.65%.

Then the 53 sections of Debian's packages by rung and number of examples: what the best threshold for the test part
would cover at 5% risk (the oracle's), and what is certified in the rollout: the test part's answers, drawn 20,000
times, go through the promoter's own tests with the thresholds that a training cycle sends. A dearer rung must earn its
cost: each request that the student answers saves a teacher's price, and each costs the student's time, here of a
teacher at $0.15 and $0.60 a million tokens and a core at $0.04 an hour. `lora` is SmolLM2 (135M), 5, 30 and 90 minutes
on one core to train; no larger base comes without a hub.

Trained students are kept in out/closed, and not trained again; so are figures, until their file there is removed. The
table and the picture are docs/closed.md and docs/closed.png.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_file
from closed_plot import CORE_USD, RUNGS_UP, cheaper, show_all
from closed_served import DEFERRED, serve
from closed_tasks import OUT, Made, intents, make, section
from selective_replays import LAST
from selective_rollout import replay

from exporters.models import write_atomic
from exporters.models.confidence import SMALLEST
from retrainer.evaluation.bounds import upper_bound
from router.policy_student import CLOSED

RELATIVE = {"banking77": 0.617, "clinc150": 0.651}
AGREEMENT, RISK = 0.994, 0.05
OF_THE_ORACLE = 0.8
TIMES = 100.0
ONE_BY_ONE = "one by one"
SIZES = [1200, 5000, 15800]  # examples of the section task
REQUESTS, SEEDS = 20_000, 3
ASKED_USD = (60 * 0.15 + 8 * 0.60) / 1e6  # of a teacher's answer
ROOT = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent.parent / "shared" / "data")
    parser.add_argument("--examples", type=int, nargs="*", default=SIZES)
    parser.add_argument("--only", nargs="*", help="parts such as banking77-linear; by default all")
    parser.add_argument("--again", action="store_true", help="goals and page of the committed figures")
    options = parser.parse_args()
    if options.again:
        results_file.again("closed", lambda figures: (figures, goals_of(figures)))
        show_all()
        return
    parts = [(name, rung) for name in RELATIVE for rung in CLOSED]
    parts += [(f"section-{n}", rung) for n in options.examples for rung in RUNGS_UP]
    for name, rung in parts:
        part, done = f"{name}-{rung}", OUT / f"{name}-{rung}.json"
        if (options.only and part not in options.only) or done.exists():
            continue
        found = _served(name, rung, options.data) if name in RELATIVE else _by_rung(name, rung, options.data)
        print(json.dumps({part: found}, indent=2), flush=True)
        write_atomic(done, json.dumps(found).encode())
    known = {
        p: json.loads((OUT / f"{p}.json").read_text()) for n, r in parts if (OUT / f"{(p := f'{n}-{r}')}.json").exists()
    }
    results_file.write("closed", known, goals_of(known))
    show_all()


def _served(name: str, rung: str, data: Path) -> dict[str, Any]:
    task = intents(name, data)
    made = make(task, rung, max_risk=1 - AGREEMENT)
    chosen, offline = made.validation[1:], made.test[1:]
    threshold = _likely(*chosen, risk=1 - AGREEMENT)
    risk, state = 1 - AGREEMENT, OUT / "served" / f"{name}-{rung}"
    texts = [DEFERRED] * len(task.test)
    if threshold <= 1.0:
        texts = asyncio.run(serve(made.artefact, task.test, threshold=threshold, risk=risk, state=state)).texts
    fast = asyncio.run(serve(made.artefact, task.test, threshold=SMALLEST, risk=risk, state=state))
    taken = [(text, e) for text, e in zip(texts, task.test, strict=True) if text != DEFERRED]
    return {
        "learnt": len(task.train),
        "asked": len(task.test),
        "train_seconds": round(made.seconds, 1),
        "accuracy": round(made.test.report.agreement, 4),
        "accuracy within scope": round(_within(made, task.test), 4),
        "oracle coverage at 99.4%": round(_covered(*offline, _loosest(*offline, risk=1 - AGREEMENT))[0], 4),
        "threshold": threshold,
        "coverage of validation": round(_covered(*chosen, threshold)[0], 4),
        "coverage": round(len(taken) / len(task.test), 4),
        "agreement": round(sum(text == e.answer for text, e in taken) / max(1, len(taken)), 4),
        "by the student, of those timed": round(1.0 - fast.texts.count(DEFERRED) / len(fast.texts), 4),
        "p50_ms": fast.p50_ms,
        "p95_ms": fast.p95_ms,
        "per_second": fast.per_second,
        "bytes": sum(f.stat().st_size for f in made.artefact.iterdir()),
    }


def _by_rung(name: str, rung: str, data: Path) -> dict[str, Any]:
    task = section(data, int(name.rpartition("-")[2]))
    made = make(task, rung, max_risk=RISK)
    report, sure, right = made.test
    oracle, _ = _covered(sure, right, _loosest(sure, right, risk=RISK))
    covered, risk, certified = _certified(made, sure, right)
    return {
        "learnt": len(task.train),
        "train_seconds": round(made.seconds, 1),
        "agreement": round(report.agreement, 4),
        "interval": [round(report.lower, 4), round(report.upper, 4)],
        "oracle": round(oracle, 4),
        "coverage": round(covered, 4),
        "risk": round(risk, 4),
        "requests until certified": certified,
        "of_the_oracle": round(covered / oracle, 3) if oracle else 0.0,
        "ms": round(made.ms, 2),
        "timed": ONE_BY_ONE,
        "saved_usd_per_1000": round(1000 * (covered * ASKED_USD - made.ms / 1000 * CORE_USD), 5),
    }


def _certified(made: Made, sure: Any, right: Any) -> tuple[float, float, int | None]:
    """Coverage at last and risk of what was served, and the requests until the first certificate: medians of SEEDS."""
    thresholds, shares = tuple(made.assessed.thresholds), tuple(made.assessed.shares)
    found = []
    for seed in range(SEEDS):
        drawn = np.random.default_rng(100 + seed).integers(len(sure), size=REQUESTS)
        told = replay(sure[drawn], 1.0 - right[drawn], thresholds, shares, max_risk=RISK, min_coverage=0.2, seed=seed)
        served, last = told.served, REQUESTS - REQUESTS // LAST
        risk = float(1.0 - right[drawn][served].mean()) if served.any() else 0.0
        found.append((float(served[last:].mean()), risk, told.certified))
    return sorted(found, key=lambda row: row[0])[SEEDS // 2]


def _loosest(sure: Any, right: Any, *, risk: float) -> float:
    """The lowest confidence at which the share of wrong answers at or above it is at most `risk`; above all without."""
    values = [t for t in np.unique(sure) if t > 0.0 and 1.0 - right[sure >= t].mean() <= risk]
    return float(min(values, default=1.1))


def _likely(sure: Any, right: Any, *, risk: float) -> float:
    """The lowest confidence at or above which the risk's upper bound at 50% is at most `risk`; above all without."""
    safe = (t for t in np.unique(sure) if t > 0.0 and upper_bound((1.0 - right[sure >= t]).tolist(), level=0.5) <= risk)
    return float(next(safe, 1.1))


def _covered(sure: Any, right: Any, threshold: float) -> tuple[float, float]:
    """Coverage and risk."""
    taken = sure >= threshold
    return float(taken.mean()), float(1.0 - right[taken].mean()) if taken.any() else 0.0


def _within(made: Made, examples: Sequence[Any]) -> float:
    pairs = zip(made.test.report.outcomes, examples, strict=True)
    values = [o.value for o, e in pairs if '"oos"' not in e.answer]
    return float(np.mean([v for v in values if v is not None]))


def goals_of(known: dict[str, Any]) -> list[dict[str, Any]]:
    """Of those parts that there are, and how many those are. Times, and what follows from them, say so where a part's
    requests were not timed one by one."""
    goals = []
    for name, wanted in RELATIVE.items():
        rows = [known[f"{name}-{rung}"] for rung in CLOSED if f"{name}-{rung}" in known]
        if not rows:
            continue
        best = max(rows, key=lambda row: row["coverage of validation"])  # the test queries choose nothing
        covered = best["coverage"] if best["agreement"] >= AGREEMENT else 0.0
        said = f"{name}: coverage with {AGREEMENT:.1%} agreement there (0 with less)"
        goals.append(results_file.goal(said, covered, ">=", wanted))
    for part, row in known.items():
        if "of_the_oracle" not in row:
            continue
        share = row["of_the_oracle"]
        goals.append(results_file.goal(f"{part}: certified, of the oracle's coverage", share, ">=", OF_THE_ORACLE))
        name, _, rung = part.rpartition("-")
        how = "" if row.get("timed") == ONE_BY_ONE else " (timed otherwise, to be measured again)"
        if rung in CLOSED and (decoding := known.get(f"{name}-lora")):
            times = round(decoding["ms"] / row["ms"], 1)
            goals.append(results_file.goal(f"{part}: times as fast as `lora` decodes{how}", times, ">=", TIMES))
        if below := cheaper(part, known):
            saved, most = (row["saved_usd_per_1000"], max(other["saved_usd_per_1000"] for other in below))
            goals.append(results_file.goal(f"{part}: USD saved of 1,000 requests{how}", saved, ">", most))
    parts = [f"section-{n}-{rung}" for n in SIZES for rung in RUNGS_UP]
    there = [known[part] for part in parts if part in known]
    goals.append(results_file.goal("section: parts measured", len(there), ">=", len(parts)))
    timed = sum(row.get("timed") == ONE_BY_ONE for row in there)
    goals.append(results_file.goal("section: parts timed one by one", timed, ">=", len(parts)))
    return goals


if __name__ == "__main__":
    main()
