"""What a model card says, from a cycle's results."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from retrainer.card.blocks import Block, Heading, Items, Paragraph, Picture, Table
from retrainer.data.told import told
from retrainer.evaluation.clusters import Regressions
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Verdict
from retrainer.evaluation.metrics import Metric
from retrainer.ladder import Step
from retrainer.safety import Suite
from router.policy_student import CLOSED

if TYPE_CHECKING:
    from retrainer.phases_gate import Compared

COLUMNS = ("teacher", "previous", "base", "student", "quantized")
NAMES = {
    "teacher": "teacher, asked again",
    "previous": "previous student",
    "base": "base, untrained",
    "student": "candidate, unquantized",
    "quantized": "candidate, as served",
}
MOST_CLUSTERS = 12  # shown, the weakest first


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One version's size and agreement, as served."""

    version: str
    megabytes: float
    quality: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`phases`: each finished phase's stored result, by name. `points`: of the route's versions, this one last.
    `ladder`: of the students that the cycle tried."""

    version: str
    route: str
    base: str
    recipe: str
    phases: Mapping[str, Any]
    reports: Mapping[str, Report]
    verdict: Verdict
    compared: "Compared"
    suites: Sequence[Suite]
    points: Sequence[Point]
    ladder: Sequence[Step] = ()


def content(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    """The card's blocks. `pictures`: what each PNG file shows, by name; those that there are."""
    return [
        Heading(f"Model card: {facts.version}", 1),
        Paragraph(
            f"A student of the route {facts.route}, made from {facts.base} by the recipe {facts.recipe}. It answers "
            "this route's requests in its teacher's place, and was evaluated on them alone: use it for nothing else."
        ),
        *_gate(facts),
        *_quality(facts, pictures),
        *_cost(facts, pictures),
        *_ladder(facts, pictures),
        *_safety(facts),
        *_weak(facts, pictures),
        *_calibration(facts, pictures),
        *_training(facts, pictures),
    ]


def _gate(facts: Facts) -> list[Block]:
    verdict = facts.verdict
    said = f"{verdict.gate}, to serve {'what it is sure of' if verdict.mode == 'selective' else 'all requests'}"
    if verdict.who is not None:
        said += f"; overridden by {verdict.who}: {verdict.why}"
    blocks: list[Block] = [Heading("Gate"), Paragraph(said + ".")]
    if verdict.reasons:
        blocks += [Paragraph("What speaks against it, or against serving all requests:"), Items(verdict.reasons)]
    if verdict.not_checked:
        blocks += [Paragraph("What it asks and could not look at:"), Items(verdict.not_checked)]
    return blocks


def _quality(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    shown = [name for name in COLUMNS if name in facts.reports]
    names = {**NAMES, "base": "the commonest answer"} if facts.recipe in CLOSED else NAMES
    metrics = dict.fromkeys(m for c in shown for m in facts.reports[c].metrics)
    rows = [[name, *(_metric(facts.reports[c].metrics.get(name)) for c in shown)] for name in metrics]
    rows.append(["records", *(str(facts.reports[c].n) for c in shown)])
    rows.append(["errors", *(str(facts.reports[c].errors) for c in shown)])
    if any(facts.reports[c].general for c in shown):
        rows.append(["general questions", *(_general(facts.reports[c]) for c in shown)])
    slices = [
        [name, *(_sized(scores.get(c)) for c in shown)]
        for name, scores in (
            ("newest traffic", facts.compared.newest),
            ("frozen regression suite", facts.compared.frozen.scores if facts.compared.frozen else {}),
        )
        if scores
    ]
    blocks: list[Block] = [
        Heading("Quality on held-out records"),
        Paragraph(
            "The reference is the teacher's logged answer, so that the teacher itself has 1 unless it was asked again. "
            "In brackets: bootstrap intervals at 95%, by conversation."
        ),
        Table(["", *(names[c] for c in shown)], rows),
    ]
    if slices:
        blocks.append(Table(["agreement on the", *(names[c] for c in shown)], slices))
    judged = facts.compared.judged
    asked = [name for name in COLUMNS if name in judged and judged[name].metrics]
    if asked:
        told = dict.fromkeys(metric for name in asked for metric in judged[name].metrics)
        table = [[metric, *(_metric(judged[name].metrics.get(metric)) for name in asked)] for metric in told]
        blocks.append(Table(["by the judge", *(names[name] for name in asked)], table))
        if "teacher" in asked:
            blocks.append(Paragraph("Whether the teacher's answers are grounded is said of the logged ones."))
    if failed := sum((Counter(found.failed) for found in judged.values()), Counter[str]()):
        said = ", ".join(f"{why} {count}" for why, count in failed.items())
        blocks.append(Paragraph(f"Questions to the judge without an answer: {said}."))
    return [*blocks, *_picture("card-clusters.png", pictures)]


def _cost(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    latency, costs = facts.reports["quantized"].latency, facts.compared.costs
    rows = [["size", f"{facts.points[-1].megabytes:.1f} MB"]]
    if latency is not None:
        rows.append(
            ["P50, P95, P99", f"{latency.p50:.0f}, {latency.p95:.0f}, {latency.p99:.0f} ms (of {latency.n} answers)"]
        )
    if found := facts.phases["export"].get("parity"):
        rows.append(["against the unquantized one", _near(found)])
    for method, tried in (facts.phases["export"].get("parity_by") or {}).items():
        rows.append([f"by {method.upper()}", tried["failed"] if "failed" in tried else _near(tried)])
    rows.append(["teacher's price", _usd(costs.teacher)])
    rows.append(["student's price", _usd(costs.student)])
    saving = facts.verdict.checks["costs"]["saving"]  # of a selective student with what it passes on
    rows.append(["saving", "unknown" if saving is None else f"{saving:.1%}"])
    return [Heading("Time, size and price"), Table(["as served", ""], rows), *_picture("card-sizes.png", pictures)]


def _near(found: Mapping[str, Any]) -> str:
    where = f"{found['tokens']} tokens of {found['of']} answers"
    return f"KL {found['kl']:.2g} nats a token, the same likeliest one at {found['top1']:.1%} (of {where})"


def _ladder(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    """Where a cycle tried several students."""
    if len(facts.ladder) < 2:
        return []
    rows = [
        [
            step.rung,
            f"{step.agreement:.3f} ({step.lower:.3f} to {step.upper:.3f})",
            "-" if step.ms is None else f"{step.ms:.1f} ms",
            "-" if step.usd_per_1000 is None else f"{step.usd_per_1000:.4f} USD",
            "-" if step.bytes is None else f"{step.bytes / 1e6:.1f} MB",
            "yes" if step.frontier else "",
            "passed" if step.passed else f"refused: {'; '.join(step.why)}",
        ]
        for step in facts.ladder
    ]
    head = ["rung", "agreement", "an answer", "1,000 requests", "size", "frontier", ""]
    said = (
        "The students that this cycle tried, from cheap to dear. On the frontier: no other one agrees more at the "
        "same cost, or as much at a lower one. The cost is in USD where that of each is known, else it is an "
        "answer's time."
    )
    return [Heading("The ladder"), Paragraph(said), Table(head, rows), *_picture("card-ladder.png", pictures)]


def _safety(facts: Facts) -> list[Block]:
    rows = [
        [
            s.name,
            ("passed" if s.cases else "nothing to look at") if s.passed else "failed",
            f"{s.failed} of {s.cases}",
            str(s.excused),
            f"{s.tolerated:.0%}",
            s.note,
        ]
        for s in facts.suites
    ]
    head = ["suite", "", "failed", "excused", "tolerated", "note"]
    blocks: list[Block] = [Heading("Safety"), Table(head, rows)]
    planted = [s.planted for s in facts.suites if s.planted is not None]
    blocks += [Paragraph(f"Learnt: {p.said()}{', which the route allows' if p.allowed else ''}.") for p in planted]
    failing = [[s.name, f.request, f.answer, f.why] for s in facts.suites for f in s.examples]
    if failing:
        blocks.append(Table(["suite", "request", "answer", "why it fails"], failing))
    return blocks


def _weak(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    shown = facts.compared.clusters[:MOST_CLUSTERS]
    rows = [[c.name, str(c.n), f"{c.agreement:.3f} ({c.lower:.3f} to {c.upper:.3f})"] for c in shown]
    blocks: list[Block] = [Heading("Where it errs"), Table(["cluster", "records", "agreement"], rows)]
    worst = [[s.request, s.teacher, s.student, s.reason] for c in shown for s in c.worst]
    if worst:
        blocks.append(Table(["request", "teacher", "candidate", ""], worst))
    if facts.compared.regressions is not None:
        blocks += _against(facts.compared.regressions, "")
    if facts.compared.frozen is not None and facts.compared.frozen.regressions is not None:
        blocks += _against(facts.compared.frozen.regressions, " on the frozen regression suite")
    return blocks


def _against(lost: Regressions, where: str) -> list[Block]:
    blocks: list[Block] = [
        Heading(f"Against {lost.previous}{where}", 3),
        Paragraph(f"Worse on {lost.lost} and better on {lost.won} of {lost.n} records (McNemar's p = {lost.p:.3g})."),
    ]
    if lost.examples:
        rows = [[s.request, s.teacher, s.before or "", s.student] for s in lost.examples]
        blocks.append(Table(["request", "teacher", "previous student", "candidate"], rows))
    return blocks


def _calibration(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    assessed = facts.phases["assess"]
    blocks: list[Block] = [Heading("Confidence")]
    if assessed["reason"]:
        blocks.append(Paragraph(f"Not calibrated: {assessed['reason']}."))
    rows = []
    for name, q in qualities(assessed).items():
        auroc = "-" if q["auroc"] is None else f"{q['auroc']:.3f}"
        rows.append([name, f"{q['ece']:.3f}", f"{q['brier']:.3f}", f"{q['log_loss']:.3f}", auroc, str(q["n"])])
    if rows:
        blocks.append(Table(["", "ECE", "Brier", "log loss", "AUROC", "records"], rows))
    return [*blocks, *_picture("card-calibration.png", pictures)]


def qualities(assessed: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Of the confidences that there are, by their names for people."""
    keys = {"calibrated": "whole"} if assessed["method"] == "logistic" else {}
    keys["mean token probability"] = "uncalibrated"
    return {name: assessed[key] for name, key in keys.items() if assessed[key] is not None}


def _training(facts: Facts, pictures: Mapping[str, str]) -> list[Block]:
    dataset, training, export = facts.phases["dataset"], facts.phases["train"], facts.phases["export"]
    counts = ", ".join(f"{n} {part}" for part, n in dataset["counts"].items())
    dropped = ", ".join(f"{d['count']} {why}" for why, d in dataset["dropped"].items()) or "none"
    unmeasured = ", ".join(f"{n} {why}" for why, d in dataset["dropped"].items() if (n := d.get("held_out", 0)))
    rows = [
        ["data set", dataset["digest"]],
        ["log offsets", f"{dataset['first']} to {dataset['end']}"],
        ["records", counts],
        ["dropped", dropped],
        ["of them held out", unmeasured or "none"],
        ["teachers", ", ".join(dataset["upstreams"])],
        *([name, said] for name, said in told(dataset).items()),
        ["base revision", str(facts.phases["prepare"])],
        ["quantization", str(export.get("quantizer", export["quantization"]))],
        *([key, str(value)] for key, value in training.get("settings", {}).items()),
    ]
    if looks := training.get("validation"):
        best = training["best_step"]
        rows.append(["validation loss", ", ".join(f"{loss:.4f} (step {step})" for step, loss in looks)])
        rows.append(["weights taken", f"of step {best}, the lowest, of {len(training['losses'])}"])
    return [Heading("Training"), Table(["", ""], rows), *_picture("card-learning.png", pictures)]


def _picture(file: str, pictures: Mapping[str, str]) -> list[Block]:
    return [Picture(file, pictures[file])] if file in pictures else []


def _metric(found: Metric | None) -> str:
    return "-" if found is None else f"{found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"


def _sized(found: Metric | None) -> str:
    return "-" if found is None else f"{_metric(found)}, n={found.n}"


def _general(report: Report) -> str:
    return "-" if report.general is None else f"{sum(report.general.right)} of {len(report.general.right)}"


def _usd(price: float | None) -> str:
    return "unknown" if price is None else f"{1000 * price:.4f} USD for 1,000 requests"
