"""What the gate needs beside the reports of base and student: others to compare with, prices, safety, and the card."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from collector import Interactions
from exporters.models import ArtefactError, Store
from exporters.models.manifest import NAME as MANIFEST
from retrainer.card import Facts, Point, write_card
from retrainer.data.curate import Example
from retrainer.evaluation.asking import Gateway, Judged, judged_pairs, teacher_again
from retrainer.evaluation.clusters import Cluster, Regressions, clusters, regressions
from retrainer.evaluation.cost import Costs, costs
from retrainer.evaluation.evaluate import Report, Scorer, evaluate
from retrainer.evaluation.gate import LEAST_JUDGED, Verdict
from retrainer.evaluation.grounded import context_of, grounded
from retrainer.evaluation.limits import Evidence
from retrainer.evaluation.scorer import similarity
from retrainer.recipes import RECIPES, Job
from retrainer.safety import Memory, Suite, build_cases, judge_suites
from retrainer.safety.cases import Case
from router.config import Config
from router.registry import Stage, Version

log = logging.getLogger("retort.retrainer")

SAFETY_TOKENS = 48  # of an answer to a probe, at the most


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cycle's, for the phases of this module. `judged`: the records that all reports are of."""

    config: Config
    route: str
    job: Job
    gateway: Gateway
    judged: Sequence[Example]
    most_tokens: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`previous`: the live version's report, `teacher`: its own, asked again; None where there is none. `judged`: what
    the judge said of the exported student."""

    costs: Costs
    clusters: list[Cluster]
    judged: Judged = Judged()
    previous: Report | None = None
    teacher: Report | None = None
    regressions: Regressions | None = None

    def reports(self) -> dict[str, Report]:
        """Those that there are, by name."""
        return {k: r for k, r in (("previous", self.previous), ("teacher", self.teacher)) if r is not None}

    def evidence(self, suites: Sequence[Suite]) -> Evidence:
        """For the gate."""
        known = self.teacher is not None and self.teacher.n >= LEAST_JUDGED
        bar = self.teacher.agreement if known and self.teacher is not None else 1.0
        return Evidence(teacher=bar, costs=self.costs, suites=suites)

    def summary(self) -> dict[str, Any]:
        """The numbers alone, for a manifest: no text."""
        told = msgspec.to_builtins(msgspec.structs.replace(self, previous=None, teacher=None))
        for weak in told["clusters"]:
            del weak["worst"], weak["name"]
        if told["regressions"] is not None:
            del told["regressions"]["examples"]
        return {key: told[key] for key in ("costs", "clusters", "judged", "regressions")}


def compare(
    setting: Setting, quantized: Report, scorer: Scorer, interactions: Interactions, versions: Sequence[Version]
) -> Compared:
    """`quantized`: of what will be served. `versions`: of the route."""
    policy, judged = setting.job.policy, setting.judged
    gate, judge = policy.retrain.gate, policy.quality.judge
    some, answers = judged[: gate.judged], [o.text for o in quantized.outcomes[: gate.judged]]
    live = next((v for v in reversed(versions) if v.stage is Stage.LIVE), None)
    previous = _previous(setting, live, quantized, scorer) if live is not None else None
    said = Judged()
    if judge is not None and some:
        said = judged_pairs(setting.gateway, setting.route, judge, some, answers)
        if any(context_of(e.messages) for e in some):
            more = grounded(setting.gateway, judge, some, answers, similarity(setting.config.state))
            said = Judged(metrics={**said.metrics, **more.metrics}, failed={**said.failed, **more.failed})
    return Compared(
        costs=costs(interactions, setting.route, gate),
        clusters=clusters(quantized, judged),
        judged=said,
        previous=previous,
        teacher=teacher_again(setting.gateway, gate.teacher_route, some, scorer) if gate.teacher_route else None,
        regressions=regressions(quantized, previous, live.id, judged) if previous and live else None,
    )


def _previous(setting: Setting, live: Version, quantized: Report, scorer: Scorer) -> Report | None:
    """The live version's own answers; None where its artefact is gone, or of a runtime that no recipe has."""
    store = Store(setting.config.artefacts)
    try:
        runtime = store.manifest(live.artefact).runtime
        recipe = next((r for make in RECIPES.values() if (r := make(setting.job)).runtime == runtime), None)
        if recipe is None:
            return None
        generator = recipe.exported(store.path(live.artefact))
    except ArtefactError as error:
        log.warning("retrainer.no_previous", extra={"version": live.id, "error": str(error)})
        return None
    return evaluate(
        generator.generate,
        setting.judged,
        scorer,
        max_new_tokens=setting.most_tokens,
        drafts=[o.text for o in quantized.outcomes],
        phase="compare",
        progress=setting.job.progress,
    )


def safety(setting: Setting, quantized: Report) -> list[Suite]:
    """Every suite, on what will be served."""
    job, gate = setting.job, setting.job.policy.retrain.gate
    memory = Memory(job.data.train)
    cases = build_cases(setting.judged, memory.planted())
    prompts = [c.messages for c in cases]
    generator = RECIPES[job.student.recipe](job).exported(job.folder / "artefact")
    answers = generator.generate(prompts, max_new_tokens=min(setting.most_tokens, SAFETY_TOKENS))
    teacher = _teachers(setting, gate.teacher_route, cases) if gate.teacher_route else None
    held_out = [(e, o.text) for e, o in zip(setting.judged, quantized.outcomes, strict=True)]
    return judge_suites(cases, [a.text for a in answers], held_out, memory, gate.tolerated, teacher=teacher)


def _teachers(setting: Setting, route: str, cases: Sequence[Case]) -> list[str | None]:
    """The teacher's answers to cases without tools (it would be asked without them); None for the others."""
    asked = [c for c in cases if not c.tools]
    said = iter(setting.gateway.answers(route, [c.messages for c in asked]))
    return [None if c.tools else next(said) for c in cases]


def card(
    setting: Setting,
    phases: Mapping[str, Any],
    reports: Mapping[str, Report],
    verdict: Verdict,
    version: str,
    versions: Sequence[Version],
) -> dict[str, int]:
    """Write the model card into the artefact; returns its files' sizes."""
    store, artefact = Store(setting.config.artefacts), setting.job.folder / "artefact"
    points = [p for v in versions if v.id != version and (p := _point(store, v)) is not None]
    points.append(Point(version=version, megabytes=_megabytes(artefact), quality=reports["quantized"].agreement))
    facts = Facts(
        version=version,
        route=setting.route,
        base=Path(setting.job.student.base).name,
        recipe=setting.job.student.recipe,
        phases=phases,
        reports=reports,
        verdict=verdict,
        compared=msgspec.convert(phases["compare"], Compared),
        suites=msgspec.convert(phases["safety"], list[Suite]),
        points=points,
    )
    return write_card(artefact, facts)


def _point(store: Store, version: Version) -> Point | None:
    try:
        quality = store.manifest(version.artefact).report.get("quantized", {}).get("agreement")
    except ArtefactError:
        return None
    if quality is None:
        return None
    return Point(version=version.id, megabytes=_megabytes(store.path(version.artefact)), quality=quality)


def _megabytes(artefact: Path) -> float:
    """Of what is served: without the card, and the manifest."""
    files = [p for p in artefact.iterdir() if p.is_file() and not p.name.startswith("card") and p.name != MANIFEST]
    return sum(p.stat().st_size for p in files) / 1e6
