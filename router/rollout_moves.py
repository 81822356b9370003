"""The moves between stages, and what each needs.

| move | needs |
|---|---|
| candidate -> shadow | gate passed (or overridden), engine ready, no other challenger |
| a step up, live | what `rollout_needs` says, no alarm |
| candidate -> rejected | hopelessly unready |
| shadow -> rejected | any alarm, futility, hopelessly unready |
| canary -> rolled back | the same, hard stop |
| live -> rolled back | any alarm, hard stop, hopelessly unready |
| canary -> shadow, or its step again | another policy: its tests are new |
| canary -> shadow | its last certificate waned (selective), without an alarm: it goes on being tested |

A pause stops all moves upwards; a pin stops those of the pinned version, and of a challenger that would replace it.
Neither stops an alarm, or the end of a test that has had its time. What has not ended an operator may end.
"""

from typing import Any

import msgspec

from router import rollout_futility, rollout_needs, rollout_selective, rollout_tests
from router.evidence import RouteEvent
from router.policy import RoutePolicy
from router.registry import Stage, Transition
from router.rollout_alarms import alarm, warned
from router.rollout_anew import Policy, detectors_anew, differs, measures_anew
from router.rollout_levels import levels, levels_kept
from router.rollout_pairs import fraction
from router.rollout_state import Guard, Level, RouteState, Stream, Trial
from router.rollout_status import evidence
from router.sequential import Cusum
from router.sequential.slo import Block

replace = msgspec.structs.replace


class Mover:
    """One batch's moves: holds the state while it changes, and the decisions made on the way."""

    def __init__(self, state: RouteState, policy: RoutePolicy, *, offset: int, at: float) -> None:
        self.state = state
        self.policy = policy
        self.transitions: list[Transition] = []
        self._offset = offset
        self._at = at

    def move(self) -> None:
        """Alarms first, then moves upwards."""
        for version, guard in list(self.state.guards.items()):
            cause = alarm(guard, self.policy, ready=self.state.versions[version].ready)
            if cause:
                self._out(version, cause)
                continue
            self._set_guard(version, warned(guard, self.policy.rollout))
            self._move_threshold(version)
        self._start_shadow()
        self._climb()

    def policy_changed(self, before: Policy, after: Policy, policy: RoutePolicy) -> None:
        """What was proven was proven of something else: the challenger's tests start anew, in shadow where quality or
        the paired latency was, which other teachers change too: they are what both compare with. What watches the
        live version stays, unless it is of something else now."""
        tested = ("quality", "latency", "errors", "rollout", "teachers", "selective", "outcomes")
        version = self.state.challenger
        evidence = self._evidence(version) if version else None
        self.policy = policy
        if not any(differs(before, after, section) for section in tested):
            return
        paired = any(differs(before, after, section) for section in ("quality", "teachers", "selective"))
        step = min(self.state.step, len(self.policy.rollout.steps) - 1)
        if version:
            self.state = replace(self.state, tests=self.state.tests + 1)
        self.state = replace(detectors_anew(self.state, before, after), trial=self._trial(), step=step)
        if self.state.live and (differs(before, after, "selective") or measures_anew(before, after)):
            self._thresholds_anew(self.state.live)
        if version is None or self.state.versions[version].stage is not Stage.CANARY:
            if version and paired:
                self._set_guard(version, self._guard(version))
            self._change()
        elif paired or differs(before, after, "latency", "margin"):
            self.state = replace(self.state, step=0)
            self._set_guard(version, self._guard(version))
            self._to(version, Stage.SHADOW, "policy_changed", evidence=evidence)
        else:
            self._to(version, Stage.CANARY, "policy_changed", evidence=evidence)

    def _thresholds_anew(self, live: str) -> None:
        """The live version keeps its threshold while its tests begin anew. Who was proven on a part alone is not left
        to serve all."""
        guard = self.state.guards[live]
        if self.policy.selective is None and guard.threshold is not None:
            self._out(live, "policy_changed")
        else:
            fresh = replace(guard, selective=self._guard(live).selective, quality=Cusum(), certified=False)
            self._set_guard(live, self._by_hand(live, fresh))

    def operate(self, event: RouteEvent) -> None:
        """An operator's word."""
        action, version = event.data.get("action"), event.version
        who = {"who": str(event.data.get("who")), "why": str(event.data.get("why"))}
        if action in ("pause", "resume"):
            self._change(paused=action == "pause", paused_by=who if action == "pause" else {})
        elif action == "unpin":
            self._change(pinned=None, pinned_by={})
        elif version not in self.state.versions:
            return
        elif action == "pin":
            self._change(pinned=version, pinned_by=who)
        elif action == "promote":
            self._go_live(version, "operator", who)
        elif action == "rollback":
            self._end(version, "operator", who)

    def hard_stop(self, event: RouteEvent) -> None:
        """A worker's word, unless it is about an earlier time in service."""
        version = event.version
        known = self.state.versions.get(version or "")
        in_service = known and known.stage in (Stage.CANARY, Stage.LIVE)
        if version and known and in_service and event.data.get("revision", 0) >= known.since:
            self._out(version, "hard_stop", {"errors": event.data.get("errors"), "window": event.data.get("window")})

    def unready(self, event: RouteEvent) -> None:
        """A version that can't be loaded, and that trying again won't mend."""
        self._end(event.version or "", "unready", {"reason": event.data.get("reason")})

    def _end(self, version: str, cause: str, evidence: dict[str, Any]) -> None:
        """Of what is in service, or waits for it."""
        waits = self.state.versions[version].stage is Stage.CANDIDATE
        if waits or version in (self.state.live, self.state.challenger):
            self._out(version, cause, evidence)

    def _move_threshold(self, version: str) -> None:
        stage = self.state.versions[version].stage
        guard, cause = rollout_selective.moved(self.state.guards[version], stage)
        self._set_guard(version, guard)
        if cause == "selective_lost" and stage is Stage.CANARY and guard.selective and not guard.selective.alarm():
            self._step_back(version, cause)
        elif cause == "selective_lost":
            self._out(version, cause)
        elif cause:
            self._to(version, stage, cause, evidence=self._evidence(version))

    def _start_shadow(self) -> None:
        if self.state.challenger is not None or self.state.paused:
            return
        for version, known in self.state.versions.items():
            if known.stage is Stage.CANDIDATE and known.admitted and known.ready:
                self.state = replace(self.state, challenger=version, step=0, tests=self.state.tests + 1)
                self.state = replace(self.state, trial=self._trial())
                self._set_guard(version, self._guard(version))
                self._to(version, Stage.SHADOW, "ready")
                return

    def _climb(self) -> None:
        version = self.state.challenger
        if version is None:
            return
        futile = rollout_futility.ends(self.state, self.policy)
        if futile:
            self._out(version, futile)
            return
        if self.state.paused or version == self.state.pinned or not self.state.versions[version].ready:
            return
        if self.state.live and self.state.live == self.state.pinned:
            return
        cause = rollout_needs.next_move(self.state, self.policy)
        if cause is None or not self._probed():
            return
        if cause == "errors_passed":
            self._go_live(version, cause)
        elif cause == "step_passed":
            self._step(version, self.state.step + 1, cause)
        else:
            self._set_guard(version, self._from_shadow(version))
            self._step(version, 0, cause)

    def _probed(self) -> bool:
        """Whether the next step's load was borne, where that is asked for; begins to ask."""
        trial = self.state.trial
        if trial.probe is None:
            trial = replace(trial, probe=rollout_needs.probe_for(self.state, self.policy))
            self.state = replace(self.state, trial=trial)
        return trial.probe is None or rollout_needs.probe_passed(trial.probe, trial, self.policy)

    def _from_shadow(self, version: str) -> Guard:
        """The guard of a version whose quality is proven: its detectors start afresh, against the level it has."""
        trial, before = self.state.trial, self.state.guards[version]
        own: dict[Stream, Level] = {"quality": Level(trial.lost / trial.pairs)} if trial.pairs else {}
        proven = before.selective and replace(before.selective, fallen=0)  # of this service
        threshold = proven.in_force.threshold if proven and proven.in_force else None
        anew = replace(self._guard(version), alpha=before.alpha, levels={} if proven else own)
        return replace(anew, selective=proven, threshold=threshold, certified=proven is not None)

    def _step(self, version: str, step: int, cause: str) -> None:
        evidence = self._evidence(version)
        fresh = replace(self.state.trial, slo=Trial().slo, requests=0, dwell=0.0, probe=None)
        self.state = replace(self.state, step=step, trial=fresh)
        guard = self.state.guards[version]
        others = {stream: level for stream, level in guard.levels.items() if stream != "slo"}
        self._set_guard(version, replace(guard, block=Block(), silence=0.0, levels=others))
        self._to(version, Stage.CANARY, cause, evidence=evidence)

    def _step_back(self, version: str, cause: str) -> None:
        """To shadow, where the tests of its thresholds go on from where they stand; the steps' own begin anew when it
        climbs again, and count as another trial."""
        evidence, before = self._evidence(version), self.state.guards[version]
        self.state = replace(self.state, step=0, tests=self.state.tests + 1)
        fresh = self._trial()
        trial = replace(self.state.trial, alpha=fresh.alpha, slo=fresh.slo, requests=0, dwell=0.0, probe=None)
        self.state = replace(self.state, trial=trial)
        self._set_guard(version, replace(self._guard(version), alpha=before.alpha, selective=before.selective))
        self._to(version, Stage.SHADOW, cause, evidence=evidence)

    def _go_live(self, version: str, cause: str, extra: dict[str, Any] | None = None) -> None:
        evidence = {**self._evidence(version), **(extra or {})}
        before, guard = self.state.live, self.state.guards.get(version)
        if before and before != version:
            self.state = levels_kept(self.state, before, "replaced")
            self._to(before, Stage.RETIRED, "replaced", {"by": version})
        if version == self.state.challenger:
            self.state = replace(self.state, challenger=None, step=0)
        self.state = replace(self.state, live=version)
        if guard is None or cause == "operator":  # by hand: detectors start afresh, against the levels it had
            had: dict[Stream, Level] = {stream: Level(mean) for stream, mean in levels(self.state, version).items()}
            guard = self._by_hand(version, replace(self._guard(version), levels=had))
        self._set_guard(version, replace(guard, silence=0.0, expected_pairs=0.0, served=0.0))
        self._to(version, Stage.LIVE, cause, evidence=evidence)

    def _out(self, version: str, cause: str, extra: dict[str, Any] | None = None) -> None:
        """Rejected before it served, rolled back from service; the teacher answers in its place."""
        evidence = {**self._evidence(version), **(extra or {})}
        served = self.state.versions[version].stage not in (Stage.CANDIDATE, Stage.SHADOW)
        self.state = levels_kept(self.state, version, cause)
        if version == self.state.challenger:
            self.state = replace(self.state, challenger=None, step=0, trial=Trial())
        if version == self.state.live:
            self.state = replace(self.state, live=None)
        if version == self.state.pinned:
            self.state = replace(self.state, pinned=None)
        self._to(version, Stage.ROLLED_BACK if served else Stage.REJECTED, cause, evidence=evidence)

    def _to(
        self,
        version: str,
        stage: Stage,
        cause: str,
        extra: dict[str, Any] | None = None,
        *,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        known = self.state.versions[version]
        revision = self.state.revision + 1
        entered = known.stage not in (Stage.CANARY, Stage.LIVE) and stage in (Stage.CANARY, Stage.LIVE)
        by_hand = cause == "operator" and stage is Stage.LIVE
        moved = replace(known, stage=stage, since=revision if entered or by_hand else known.since)
        self.state = replace(self.state, revision=revision, versions={**self.state.versions, version: moved})
        if stage not in (Stage.SHADOW, Stage.CANARY, Stage.LIVE):
            self.state = replace(self.state, guards={v: g for v, g in self.state.guards.items() if v != version})
        self.transitions.append(
            Transition(
                route=self.state.route,
                offset=self._offset,
                at=self._at,
                version=version,
                before=known.stage,
                after=stage,
                step=self.state.step,
                fraction=fraction(self.state, self.policy),
                cause=cause,
                evidence={**(evidence or {}), **(extra or {})},
            )
        )

    def _trial(self) -> Trial:
        """New tests, with what this version may spend."""
        return Trial(alpha=rollout_tests.alpha(self.policy.quality, self.state.tests))

    def _guard(self, version: str) -> Guard:
        """New detectors, watched from the next revision on."""
        tested = rollout_selective.start(self.state.versions[version]) if self.policy.selective else None
        return Guard(alpha=self._trial().alpha, since=self.state.revision + 1, selective=tested)

    def _by_hand(self, version: str, guard: Guard) -> Guard:
        """The guard of a version that is to serve without a certificate of its own: at its last threshold, or the
        first one."""
        if guard.selective is None:
            return guard
        before = self.state.guards.get(version)
        last = before.threshold if before else None
        return replace(guard, threshold=guard.selective.tested[0].threshold if last is None else last)

    def _change(self, **fields: Any) -> None:
        self.state = replace(self.state, revision=self.state.revision + 1, **fields)

    def _set_guard(self, version: str, guard: Guard) -> None:
        self.state = replace(self.state, guards={**self.state.guards, version: guard})

    def _evidence(self, version: str) -> dict[str, Any]:
        return evidence(self.state, self.policy, version)
