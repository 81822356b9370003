"""One cycle, from a log range to a registered candidate. Each phase's result is stored before the next begins, so a
killed cycle goes on at the phase where it was, and inside training at its last checkpoint.

    prepare -> dataset -> closed -> train -> evaluate_base -> evaluate_student -> gate
            -> export -> evaluate_quantized -> assess -> compare -> safety -> gate_quantized
            -> card -> publish -> register

On a ladder, prepare to gate_quantized come for each rung until one passes, and dataset and closed before them all.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from collector import Interactions
from collector.judge import Ask
from exporters.models import ArtefactError
from retrainer.audit import note
from retrainer.begin import begin
from retrainer.errors import CycleError, NotEnoughExamples, PhaseElsewhere, RetrainerError
from retrainer.evaluation.assess import Assessment
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Verdict, judge
from retrainer.evaluation.limits import Evidence, Limits
from retrainer.generations import taught_by
from retrainer.ladder import BROKEN, Rung, Step, broken, ladder_of, rungs, told_broken
from retrainer.phases import Phases
from retrainer.phases_card import Passed
from retrainer.phases_gate import Compared
from retrainer.progress import Progress, silent
from retrainer.recipes import Job
from retrainer.register import Registered, Send, register
from retrainer.safety import Suite
from retrainer.scoring import Scorer
from retrainer.scoring import scorer as bind
from retrainer.serving import serving
from retrainer.state import Cycles, CycleState, Request
from router.config import Config
from router.events import Events
from router.policy import RoutePolicy
from router.registry import Registry, Version
from router.scores import Spec

T = TypeVar("T")


class CycleResult(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome`: registered (also by an override) | refused. `version`: registered version id, None where refused.
    `reports`: base, student, quantized, previous, teacher (as far as the cycle came, and as there are), `verdict`: of
    the last rung that was tried. `closed`: whether the answers are few. `ladder`: what each rung came to. `seconds` by
    phase."""

    cycle_id: str
    outcome: str
    version: str | None
    verdict: Verdict
    reports: dict[str, Report]
    closed: dict[str, Any]
    ladder: list[Step]
    seconds: dict[str, float]
    folder: Path


class _Climbed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one rung. `assessed`: None where its gate refused before the export."""

    rung: Rung
    work: Phases
    verdict: Verdict
    reports: dict[str, Report]
    assessed: Assessment | None


class Seams(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may put in another's place. `send`: to the collector. `scorer`: by the policy's score.
    `ask`: of the gateway."""

    send: Send | None = None
    scorer: Callable[[Spec], Scorer] | None = None
    ask: Ask | None = None


def run_request(
    config: Config,
    request: Request,
    *,
    registry: Registry,
    interactions: Interactions,
    events: Events,
    progress: Progress = silent,
    seams: Seams | None = None,
    mine: Callable[[str], bool] = lambda phase: True,
) -> CycleResult:
    """Begin the cycle that a request names, or go on with it, to its end. Blocks for as long as training takes.

    `mine`: whether this process does a phase; before the first that it doesn't, it ends with PhaseElsewhere. Raises
    RetrainerError, ArtefactError, and what log, registry and collector raise; a cycle that ended so may be run again by
    its id, unless it was marked as failed.
    """
    cycles = Cycles(config.state)
    with cycles.lock(request.cycle_id):
        state = begin(config, cycles, request)
        if state.outcome in ("failed", "skipped"):
            raise CycleError(f"cycle {request.cycle_id} has ended: {state.error}; start a new one")
        cycle = _Cycle(config, cycles, state, registry=registry, events=events, progress=progress, mine=mine)
        try:
            return cycle.run(interactions, seams or Seams())
        except NotEnoughExamples as error:
            cycle.end("skipped", error=str(error), seen=error.end)
            raise


class _Cycle:
    """The order of the phases, and what is stored of each."""

    def __init__(
        self,
        config: Config,
        cycles: Cycles,
        state: CycleState,
        *,
        registry: Registry,
        events: Events,
        progress: Progress,
        mine: Callable[[str], bool],
    ) -> None:
        self._config, self._cycles, self._state = config, cycles, state
        self._registry, self._events, self._progress, self._mine = registry, events, progress, mine
        self._policy = taught_by(RoutePolicy.model_validate(state.policy), state.earlier)
        if self._policy.student is None:
            raise CycleError(f"cycle {state.request.cycle_id} is of a route without a student")
        self._student = self._policy.student
        self._id = state.request.cycle_id

    def run(self, interactions: Interactions, seams: Seams) -> CycleResult:
        """Every phase that has no result yet."""
        spec = self._policy.quality.score
        scorer = seams.scorer(spec) if seams.scorer else bind(spec, self._config.state)
        first = rungs(self._student, closed=True)[0]
        work = self._work(first, seams)
        if not first.name:
            self._phase("prepare", str, work.prepare)
        self._phase("dataset", dict[str, Any], lambda: work.dataset(interactions))
        closed = self._phase("closed", dict[str, Any], work.closed)
        again = self._phase("teacher", dict[str, Report], lambda: work.teacher(scorer))
        tried, climbed = rungs(self._student, closed=closed["closed"]), None
        for rung in tried:
            if rung.key(BROKEN) in self._state.phases:
                continue
            try:
                climbed = self._climb(rung, interactions, scorer, seams, again, last=rung == tried[-1])
            except (RetrainerError, ArtefactError) as error:
                if error.retryable or not rung.name or (rung == tried[-1] and self._state.request.override):
                    raise
                self._state.phases[rung.key(BROKEN)] = str(error)
                self._cycles.save(self._state)
                continue
            if climbed.verdict.lets_through and climbed.assessed is not None:
                self._publish(climbed, climbed.assessed, seams.send)
                break
        if climbed is None:
            raise CycleError("; ".join(f"{rung}: {why}" for rung, why in broken(self._state).items()))
        return self._result(climbed)

    def _work(self, rung: Rung, seams: Seams) -> Phases:
        folder, request = self._cycles.folder(self._id), self._state.request
        job = Job(
            self._config.state,
            rung.policy(self._policy),
            rung.folder(folder),
            self._progress,
            dataset=folder / "dataset",
            max_steps=request.max_steps,
            serving=serving(self._config, self._student),
        )
        return Phases(self._config, request, job, ask=seams.ask)

    def _climb(
        self,
        rung: Rung,
        interactions: Interactions,
        scorer: Scorer,
        seams: Seams,
        again: Mapping[str, Report],
        *,
        last: bool,
    ) -> _Climbed:
        """Make one student, and judge it. A person's override takes on the last one."""
        work = self._work(rung, seams)
        self._phase(rung.key("prepare"), str, work.prepare)
        self._phase(rung.key("train"), dict[str, Any], work.train)
        base = self._phase(rung.key("evaluate_base"), Report, lambda: work.evaluate_base(scorer))
        student = self._phase(rung.key("evaluate_student"), Report, lambda: work.evaluate_student(scorer))
        reports = {"base": base, "student": student, **again}
        judging = partial(
            judge,
            base=base,
            student=student,
            limits=Limits.of(self._policy),
            selective=self._policy.selective,
            override=self._state.request.override if last else None,
        )
        verdict = self._phase(
            rung.key("gate"),
            Verdict,
            lambda: judging(quantized=None, evidence=Evidence.of(again.get("teacher"), work.heard(student))),
        )
        if not verdict.lets_through:
            return _Climbed(rung=rung, work=work, verdict=verdict, reports=reports, assessed=None)
        self._phase(rung.key("export"), dict[str, Any], work.export)
        quantized = self._phase(
            rung.key("evaluate_quantized"), Report, lambda: work.evaluate_quantized(scorer, student)
        )
        reports["quantized"] = quantized
        assessed = self._phase(rung.key("assess"), Assessment, lambda: work.assess(quantized))
        compared = self._phase(
            rung.key("compare"), Compared, lambda: work.compare(interactions, scorer, reports, self._versions())
        )
        reports |= compared.reports()
        suites = self._phase(rung.key("safety"), list[Suite], lambda: work.safety(quantized))
        known = compared.evidence(suites)
        verdict = self._phase(
            rung.key("gate_quantized"),
            Verdict,
            lambda: judging(quantized=quantized, start=assessed.start, evidence=known),
        )
        return _Climbed(rung=rung, work=work, verdict=verdict, reports=reports, assessed=assessed)

    def _publish(self, climbed: _Climbed, assessed: Assessment, send: Send | None) -> None:
        work = climbed.work
        passed = Passed(
            phases=climbed.rung.phases(self._state.phases),
            reports=climbed.reports,
            verdict=climbed.verdict,
            ladder=ladder_of(self._state),
        )
        self._phase("card", dict[str, int], lambda: work.card(passed, self._versions()))
        self._phase("publish", str, lambda: work.publish(passed))
        made = Registered(verdict=climbed.verdict, assessed=assessed, base=work.base, tools=work.tools)
        self._phase(
            "register", float, lambda: register(self._config, self._policy, self._state, self._registry, made, send)
        )

    def _versions(self) -> Sequence[Version]:
        """For a phase to call: only the retrainer's own machine has the registry."""
        return self._registry.versions(self._state.request.route)

    def end(self, outcome: str, *, error: str | None = None, seen: int = 0) -> None:
        """Store how the cycle ended, once."""
        if self._state.outcome is None:
            self._state.outcome, self._state.error, self._state.seen = outcome, error, seen
            self._state.finished_at = time.time()
            self._cycles.save(self._state)
            note(self._config.state, [self._state])
            self._events.emit("retrainer.cycle", route=self._state.request.route, outcome=outcome)

    def _phase(self, name: str, kind: type[T], work: Callable[[], T]) -> T:
        if name not in self._state.phases:
            if not self._mine(name):
                raise PhaseElsewhere(f"cycle {self._id}: {name} is another process's to do")
            self._progress(name, 0, 1, None)
            began = time.monotonic()
            result = work()
            seconds = time.monotonic() - began
            self._state.phases[name] = msgspec.to_builtins(result)
            self._state.seconds[name] = self._state.seconds.get(name, 0.0) + seconds
            self._cycles.save(self._state)
            self._events.emit("retrainer.phase", route=self._state.request.route, phase=name, seconds=seconds)
            self._progress(name, 1, 1, 0.0)
        return msgspec.convert(self._state.phases[name], kind)

    def _result(self, climbed: _Climbed) -> CycleResult:
        registered = "register" in self._state.phases
        ladder = ladder_of(self._state)
        refused = [f"{step.rung}: {why}" if len(ladder) > 1 else why for step in ladder for why in step.why]
        refused += told_broken(self._state)
        reasons = climbed.verdict.reasons if registered else refused
        self.end("registered" if registered else "refused", error="; ".join(reasons) or None)
        return CycleResult(
            cycle_id=self._id,
            outcome="registered" if registered else "refused",
            version=self._id if registered else None,
            verdict=climbed.verdict,
            reports=climbed.reports,
            closed=self._state.phases["closed"],
            ladder=ladder,
            seconds=dict(self._state.seconds),
            folder=self._cycles.folder(self._id),
        )
