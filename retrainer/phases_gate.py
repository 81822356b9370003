"""What the gate needs beside the reports of base and student: others to compare with, prices, and safety."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from collector import Interactions
from exporters.models import ArtefactError, Generated
from exporters.models.open_store import open_store
from retrainer.data.curate import Example
from retrainer.evaluation.asking import Gateway, Judged, judged_pairs, teacher_again
from retrainer.evaluation.clusters import Cluster, Regressions, clusters, regressions
from retrainer.evaluation.cost import Costs, costs
from retrainer.evaluation.evaluate import Generate, Report, evaluate
from retrainer.evaluation.generator import with_room
from retrainer.evaluation.grounded import context_of, grounded
from retrainer.evaluation.limits import Evidence
from retrainer.evaluation.metrics import Metric
from retrainer.evaluation.slices import Frozen, agreements, remembering
from retrainer.recipes import RECIPES, SERVED, Job
from retrainer.safety import Memory, Suite, build_cases, judge_suites
from retrainer.safety.cases import Case
from retrainer.scoring import Scorer, similarity
from router.config import Config
from router.policy_quality import JudgePolicy
from router.registry import Stage, Version

log = logging.getLogger("retort.retrainer")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cycle's, for the phases of this module. `judged`: the records that all reports are of. `frozen`: the route's
    regression suite. `most_tokens`: of an answer of the candidate; `thinking_tokens`: that it may think before one."""

    config: Config
    route: str
    job: Job
    gateway: Gateway
    judged: Sequence[Example]
    frozen: Sequence[Example]
    most_tokens: int
    thinking_tokens: int = 0


class Answering(NamedTuple):
    """`most_tokens`: of an answer, in the generator's own tokens."""

    generate: Generate
    most_tokens: int


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`previous`: the live version's report, `teacher`: its own, asked again; None where there is none. `judged`: what
    the judge said, by the report's name; the exported student's is `quantized`. `newest`: each report's agreement on
    those of its records that are of the newest traffic. `unanswered`: the live version, where its artefact can't be
    asked any more."""

    costs: Costs
    clusters: list[Cluster]
    judged: dict[str, Judged] = {}
    previous: Report | None = None
    teacher: Report | None = None
    regressions: Regressions | None = None
    newest: dict[str, Metric] = {}
    frozen: Frozen | None = None
    unanswered: str | None = None

    def reports(self) -> dict[str, Report]:
        """Those that there are, by name."""
        return {k: r for k, r in (("previous", self.previous), ("teacher", self.teacher)) if r is not None}

    def evidence(self, suites: Sequence[Suite]) -> Evidence:
        """For the gate."""
        lost = self.frozen.regressions if self.frozen is not None else None
        return msgspec.structs.replace(
            Evidence.of(self.teacher, suites), costs=self.costs, regressions=lost, unanswered=self.unanswered
        )

    def summary(self) -> dict[str, Any]:
        """The numbers alone, for a manifest: no text."""
        told = msgspec.to_builtins(msgspec.structs.replace(self, previous=None, teacher=None))
        for weak in told["clusters"]:
            del weak["worst"], weak["name"]
        if told["regressions"] is not None:
            del told["regressions"]["examples"]
        return {key: told[key] for key in ("costs", "clusters", "judged", "regressions", "newest", "frozen")}


def compare(
    setting: Setting,
    reports: Mapping[str, Report],
    scorer: Scorer,
    interactions: Interactions,
    versions: Sequence[Version],
) -> Compared:
    """`reports`: of base, student, what will be served (`quantized`), and the teacher where it was asked again.
    `versions`: of the route."""
    policy, judged, quantized = setting.job.policy, setting.judged, reports["quantized"]
    gate, judge = policy.retrain.gate, policy.quality.judge
    live = next((v for v in reversed(versions) if v.stage is Stage.LIVE), None)
    before = _previous(setting, live) if live is not None else None
    previous = _report(setting, before, judged, scorer, quantized) if before else None
    teacher = reports.get("teacher")
    said = {"quantized": quantized, "base": reports["base"], "previous": previous, "teacher": teacher}
    made = Compared(
        costs=costs(interactions, setting.route, gate, quantized.latency),
        clusters=clusters(quantized, judged),
        judged=_by_the_judge(setting, judge, {k: r for k, r in said.items() if r}) if judge else {},
        previous=previous,
        teacher=teacher,
        regressions=regressions(quantized, previous, live.id, judged) if previous and live else None,
        unanswered=live.id if live is not None and previous is None else None,
        frozen=_frozen(setting, quantized, previous, before, live, scorer) if setting.frozen else None,
    )
    newest = {e.id for e in setting.job.data.newest}
    return msgspec.structs.replace(made, newest=agreements({**reports, **made.reports()}, judged, newest))


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


def _frozen(
    setting: Setting,
    quantized: Report,
    previous: Report | None,
    before: Answering | None,
    live: Version | None,
    scorer: Scorer,
) -> Frozen:
    """Who answers the frozen suite how well. What stands in `judged` too, as in a route's first cycles, is not answered
    anew. The teacher is asked again, where the route says so, for as many records as it is of the held-out ones. None
    of its texts is kept: a record of the suite may be in no data set of this version, by which an erasure finds it."""
    gate, suite = setting.job.policy.retrain.gate, setting.frozen
    recipe = RECIPES[setting.job.student.recipe](setting.job)

    def served(*prompts: Any, **how: Any) -> list[Generated]:  # loaded where there is something to ask
        return recipe.exported(setting.job.folder / "artefact").generate(*prompts, **how)

    now = _report(
        setting, Answering(remembering(served, setting.judged, quantized), setting.most_tokens), suite, scorer
    )
    reports = {"quantized": now}
    lost = None
    if before is not None and previous is not None and live is not None:
        known = Answering(remembering(before.generate, setting.judged, previous), before.most_tokens)
        then = _report(setting, known, suite, scorer, now)
        reports["previous"] = then
        lost = msgspec.structs.replace(regressions(now, then, live.id, suite), examples=[])
    teacher = teacher_again(setting.gateway, gate.teacher_route, suite[: gate.judged], scorer)
    reports |= {"teacher": teacher} if teacher is not None else {}
    return Frozen(scores=agreements(reports, suite), regressions=lost)


def _previous(setting: Setting, live: Version) -> Answering | None:
    """How the live version answers; None where its artefact is gone, or of a runtime that no recipe has."""
    store, job = open_store(setting.config), setting.job
    try:
        load = SERVED.get(store.manifest(live.artefact).runtime)
        if load is None:
            return None
        generator = load(store.local(live.artefact))
    except ArtefactError as error:
        if error.retryable:  # the store is away: it may be there in a minute
            raise
        log.warning("retrainer.no_previous", extra={"version": live.id, "error": str(error)})
        return None
    answers = {e.said for e in (*job.data.train, *setting.judged, *setting.frozen)}
    return Answering(generator.generate, with_room(max(map(generator.length, answers))))


def _report(
    setting: Setting, answering: Answering, examples: Sequence[Example], scorer: Scorer, guessed: Report | None = None
) -> Report:
    """`guessed`: of the same examples; most answers will be the same."""
    return evaluate(
        answering.generate,
        examples,
        scorer,
        max_new_tokens=answering.most_tokens,
        drafts=[o.said for o in guessed.outcomes] if guessed else [e.said for e in examples],
        phase="compare",
        progress=setting.job.progress,
    )


def safety(setting: Setting, quantized: Report) -> list[Suite]:
    """Every suite, on what will be served."""
    job, gate = setting.job, setting.job.policy.retrain.gate
    memory = _memory(job)
    cases = build_cases(setting.judged, memory.planted())
    prompts = [c.messages for c in cases]
    generator = RECIPES[job.student.recipe](job).exported(job.folder / "artefact")
    answers: dict[int, Generated] = {}
    for most in {case.tokens for case in cases}:
        some = [n for n, case in enumerate(cases) if case.tokens == most]
        room = setting.most_tokens if most is None else min(setting.most_tokens, most + setting.thinking_tokens)
        said = generator.generate([prompts[n] for n in some], max_new_tokens=room)
        answers |= dict(zip(some, said, strict=True))
    told = [answers[n] for n in range(len(cases))]
    teacher = _teachers(setting, gate.teacher_route, cases) if gate.teacher_route else None
    held_out = [(e, o.text) for e, o in zip(setting.judged, quantized.outcomes, strict=True)]
    thoughts = [a.reasoning for a in told] + [o.reasoning for o in quantized.outcomes]
    return judge_suites(
        cases, [a.text for a in told], held_out, memory, gate.tolerated, teacher=teacher, thoughts=thoughts
    )


def heard(setting: Setting, student: Report) -> list[Suite]:
    """The suites, on the held-out answers alone: nothing is asked. Those that have a case."""
    held_out = [(e, o.text) for e, o in zip(setting.judged, student.outcomes, strict=True)]
    job = setting.job
    found = judge_suites(
        (),
        (),
        held_out,
        _memory(job),
        job.policy.retrain.gate.tolerated,
        thoughts=[o.reasoning for o in student.outcomes],
    )
    return [suite for suite in found if suite.cases]


def _memory(job: Job) -> Memory:
    return Memory(job.data.train, allowed=job.policy.retrain.data.secrets == "keep")


def _teachers(setting: Setting, route: str, cases: Sequence[Case]) -> list[str | None]:
    """The teacher's answers to cases without tools (it would be asked without them); None for the others."""
    asked = [c for c in cases if not c.tools]
    said = iter(setting.gateway.answers(route, [c.messages for c in asked]))
    return [None if c.tools else next(said) for c in cases]
