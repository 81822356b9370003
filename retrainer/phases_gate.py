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
from retrainer.evaluation.gate import Verdict
from retrainer.evaluation.generator import with_room
from retrainer.evaluation.grounded import context_of, grounded
from retrainer.evaluation.limits import Evidence
from retrainer.evaluation.scorer import similarity
from retrainer.ladder import Step
from retrainer.recipes import RECIPES, Job
from retrainer.safety import Memory, Suite, build_cases, judge_suites
from router.config import Config
from router.policy_quality import JudgePolicy
from router.registry import Stage, Version

log = logging.getLogger("retort.retrainer")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cycle's, for the phases of this module. `judged`: the records that all reports are of. `most_tokens`: of an
    answer of the candidate."""

    config: Config
    route: str
    job: Job
    gateway: Gateway
    judged: Sequence[Example]
    most_tokens: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`previous`: the live version's report, `teacher`: its own, asked again; None where there is none. `judged`: what
    the judge said, by the report's name; the exported student's is `quantized`."""

    costs: Costs
    clusters: list[Cluster]
    judged: dict[str, Judged] = {}
    previous: Report | None = None
    teacher: Report | None = None
    regressions: Regressions | None = None

    def reports(self) -> dict[str, Report]:
        """Those that there are, by name."""
        return {k: r for k, r in (("previous", self.previous), ("teacher", self.teacher)) if r is not None}

    def evidence(self, suites: Sequence[Suite]) -> Evidence:
        """For the gate."""
        if self.teacher is None:
            return Evidence(costs=self.costs, suites=suites)
        # The upper end: luck with a few records must not lower the bar.
        return Evidence(teacher=self.teacher.upper, teacher_n=self.teacher.n, costs=self.costs, suites=suites)

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
    live = next((v for v in reversed(versions) if v.stage is Stage.LIVE), None)
    previous = _previous(setting, live, quantized, scorer) if live is not None else None
    teacher = teacher_again(setting.gateway, gate.teacher_route, judged, scorer) if gate.teacher_route else None
    reports = {"quantized": quantized, "previous": previous, "teacher": teacher}
    return Compared(
        costs=costs(interactions, setting.route, gate, quantized.latency),
        clusters=clusters(quantized, judged),
        judged=_by_the_judge(setting, judge, {k: r for k, r in reports.items() if r}) if judge else {},
        previous=previous,
        teacher=teacher,
        regressions=regressions(quantized, previous, live.id, judged) if previous and live else None,
    )


def _by_the_judge(setting: Setting, judge: JudgePolicy, reports: Mapping[str, Report]) -> dict[str, Judged]:
    """Of each report the first few records' answers; of the teacher's logged ones whether they are grounded."""
    some = setting.judged[: setting.job.policy.retrain.gate.judged]
    said: dict[str, Judged] = {}
    texts = {name: {o.id: o.text for o in report.outcomes} for name, report in reports.items()}
    for name, answers in texts.items():
        known = [e for e in some if e.id in answers]
        given = [answers[e.id] for e in known]
        said[name] = judged_pairs(setting.gateway, setting.route, judge, known, given)
    if any(context_of(e.messages) for e in some):
        students = {name: [answers[e.id] for e in some] for name, answers in texts.items() if name != "teacher"}
        for name, found in grounded(setting.gateway, judge, some, students, similarity(setting.config.state)).items():
            said[name] = said.get(name, Judged()).with_more(found)
    return said


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
    answers = {e.answer for e in (*setting.job.data.train, *setting.judged)}
    return evaluate(
        generator.generate,
        setting.judged,
        scorer,
        max_new_tokens=with_room(max(map(generator.length, answers))),  # in its own tokens, not the candidate's
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
    answers: dict[int, str] = {}
    for most in {case.tokens or setting.most_tokens for case in cases}:
        some = [n for n, case in enumerate(cases) if (case.tokens or setting.most_tokens) == most]
        said = generator.generate([prompts[n] for n in some], max_new_tokens=min(setting.most_tokens, most))
        answers |= {n: answer.text for n, answer in zip(some, said, strict=True)}
    teacher = setting.gateway.answers(gate.teacher_route, prompts) if gate.teacher_route else None
    held_out = [(e, o.text) for e, o in zip(setting.judged, quantized.outcomes, strict=True)]
    return judge_suites(
        cases, [answers[n] for n in range(len(cases))], held_out, memory, gate.tolerated, teacher=teacher
    )


def card(
    setting: Setting,
    phases: Mapping[str, Any],
    reports: Mapping[str, Report],
    verdict: Verdict,
    version: str,
    versions: Sequence[Version],
    ladder: Sequence[Step],
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
        ladder=ladder,
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
