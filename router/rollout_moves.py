"""The moves between stages, and what each needs.

| move | needs |
|---|---|
| candidate -> shadow | gate passed (or overridden), engine ready, no other challenger |
| shadow -> first step | quality test and paired latency test passed, no alarm |
| step -> next step | dwell, requests, this step's SLO test, no alarm |
| last step -> live | the same, and the error test |
| shadow -> rejected | any alarm, futility, hopelessly unready |
| canary -> rolled back | the same, hard stop |
| live -> rolled back | any alarm, hard stop, hopelessly unready |
| canary -> shadow, or its step again | another policy: its tests are new |

A pause stops all moves upwards; a pin stops those of the pinned version, and of a challenger that would replace it.
Neither stops an alarm, or the end of a test that has had its time.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from router import rollout_futility
from router.evidence import RouteEvent
from router.evidence_update import LEAST
from router.policy import RoutePolicy
from router.registry import Stage, Transition
from router.rollout_alarms import LEVEL_ALARMS, alarm, warned
from router.rollout_anew import Policy, detectors_anew, differs
from router.rollout_state import Guard, Level, RouteState, Stream, Trial
from router.rollout_status import evidence
from router.sequential.slo import Block

replace = msgspec.structs.replace


def fraction(state: RouteState, policy: RoutePolicy) -> float:
    """The challenger's share of eligible traffic."""
    if state.challenger is None or state.versions[state.challenger].stage is not Stage.CANARY:
        return 0.0
    return min(policy.rollout.steps[state.step], 1.0 - policy.rollout.holdback)


class Mover:
    """One record's moves: holds the state while it changes, and the decisions made on the way."""

    def __init__(self, state: RouteState, policy: RoutePolicy, *, offset: int, at: float) -> None:
        self.state = state
        self.policy = policy
        self.transitions: list[Transition] = []
        self._offset = offset
        self._at = at

    def move(self) -> None:
        """Alarms first, then moves upwards."""
        rules = self.policy.rollout
        for version, guard in list(self.state.guards.items()):
            cause = alarm(guard, rules, ready=self.state.versions[version].ready)
            if cause:
                self._out(version, cause)
            elif (marked := warned(guard, rules)) is not guard:
                self._set_guard(version, marked)
        self._start_shadow()
        self._climb()

    def policy_changed(self, before: Policy, after: Policy) -> None:
        """What was proven was proven of something else: the challenger's tests start anew, in shadow where quality or
        the paired latency was, which other teachers change too: they are what both compare with. What watches the
        live version stays, unless it is of something else now."""
        tested = ("quality", "latency", "errors", "rollout", "teachers")
        if not any(differs(before, after, section) for section in tested):
            return
        paired = any(differs(before, after, section) for section in ("quality", "teachers"))
        version = self.state.challenger
        evidence = self._evidence(version) if version else None
        step = min(self.state.step, len(self.policy.rollout.steps) - 1)
        self.state = replace(detectors_anew(self.state, before, after), trial=Trial(), step=step)
        if version is None or self.state.versions[version].stage is not Stage.CANARY:
            self._change()
        elif paired or differs(before, after, "latency", "margin"):
            self.state = replace(self.state, step=0)
            guard = replace(self.state.guards[version], levels={}, block=Block(), silence=0.0, expected_pairs=0.0)
            self._set_guard(version, replace(guard, since=self.state.revision + 1))
            self._to(version, Stage.SHADOW, "policy_changed", evidence=evidence)
        else:
            self._to(version, Stage.CANARY, "policy_changed", evidence=evidence)

    def operate(self, event: RouteEvent) -> None:
        """An operator's word."""
        action, version = event.data.get("action"), event.version
        who = {"who": event.data.get("who"), "why": event.data.get("why")}
        if action in ("pause", "resume"):
            self._change(paused=action == "pause")
        elif action == "unpin":
            self._change(pinned=None)
        elif version not in self.state.versions:
            return
        elif action == "pin":
            self._change(pinned=version)
        elif action == "promote":
            self._go_live(version, "operator", who)
        elif action == "rollback" and version in (self.state.live, self.state.challenger):
            self._out(version, "operator", who)

    def hard_stop(self, event: RouteEvent) -> None:
        """A worker's word, unless it is about an earlier time in service."""
        version = event.version
        known = self.state.versions.get(version or "")
        in_service = known and known.stage in (Stage.CANARY, Stage.LIVE)
        if version and known and in_service and event.data.get("revision", 0) >= known.since:
            self._out(version, "hard_stop", {"errors": event.data.get("errors"), "window": event.data.get("window")})

    def unready(self, event: RouteEvent) -> None:
        """A version that can't be loaded, and that trying again won't mend."""
        version = event.version or ""
        if version in (self.state.live, self.state.challenger):
            self._out(version, "unready", {"reason": event.data.get("reason")})
        elif self.state.versions[version].stage is Stage.CANDIDATE:
            self._to(version, Stage.REJECTED, "unready", {"reason": event.data.get("reason")})

    def expect_pairs(self, requests: Mapping[int, int]) -> None:
        """So many eligible requests came since the last tick, by the revision that decided them: where a version was
        watched and ready, some of them owed a pair."""
        for version, guard in self.state.guards.items():
            if self.state.versions[version].ready:
                asked = sum(n for revision, n in requests.items() if revision >= guard.since)
                due = guard.expected_pairs + asked * self._pair_rate(version)
                guards = {**self.state.guards, version: replace(guard, expected_pairs=due)}
                self.state = replace(self.state, guards=guards)

    def _pair_rate(self, version: str) -> float:
        """The probability that an eligible request yields a pair of this version."""
        share, policy = fraction(self.state, self.policy), self.policy
        audited = policy.rollout.holdback + policy.quality.audit_rate * (1.0 - policy.rollout.holdback)
        if self.state.versions[version].stage is Stage.SHADOW:
            return audited if self.state.live else policy.quality.shadow_rate
        served = share if version == self.state.challenger else 1.0 - policy.rollout.holdback - share
        return policy.rollout.holdback + policy.quality.audit_rate * max(served, 0.0)

    def _start_shadow(self) -> None:
        if self.state.challenger is not None or self.state.paused:
            return
        for version, known in self.state.versions.items():
            if known.stage is Stage.CANDIDATE and known.admitted and known.ready:
                self.state = replace(self.state, challenger=version, trial=Trial(), step=0)
                self._set_guard(version, Guard(since=self.state.revision + 1))
                self._to(version, Stage.SHADOW, "ready")
                return

    def _climb(self) -> None:
        version, trial = self.state.challenger, self.state.trial
        if version is None:
            return
        in_shadow = self.state.versions[version].stage is Stage.SHADOW
        last_step = self.state.step + 1 == len(self.policy.rollout.steps)
        futile = (
            rollout_futility.in_shadow(trial, self.policy)
            if in_shadow
            else rollout_futility.in_canary(trial, self.policy, last_step=last_step)
        )
        if futile:
            self._out(version, futile)
            return
        if self.state.paused or version == self.state.pinned or not self.state.versions[version].ready:
            return
        if self.state.live and self.state.live == self.state.pinned:
            return
        if in_shadow:
            if trial.quality_passed and trial.latency_passed:
                levels: dict[Stream, Level] = {"quality": Level(trial.lost / trial.pairs)}
                self._set_guard(version, Guard(levels=levels, since=self.state.revision + 1))
                self._step(version, 0, Stage.CANARY, "quality_and_latency_passed")
        elif trial.slo_passed and self._stayed(trial):
            if not last_step:
                self._step(version, self.state.step + 1, Stage.CANARY, "step_passed")
            elif trial.errors_passed:
                self._go_live(version, "errors_passed")

    def _stayed(self, trial: Trial) -> bool:
        return trial.dwell >= self.policy.rollout.min_dwell and trial.requests >= self.policy.rollout.min_requests

    def _step(self, version: str, step: int, stage: Stage, cause: str) -> None:
        evidence = self._evidence(version)
        fresh = replace(self.state.trial, slo=Trial().slo, slo_passed=False, requests=0, dwell=0.0)
        self.state = replace(self.state, step=step, trial=fresh)
        guard = self.state.guards[version]
        levels = {stream: level for stream, level in guard.levels.items() if stream != "slo"}
        self._set_guard(version, replace(guard, block=Block(), silence=0.0, levels=levels))
        self._to(version, stage, cause, evidence=evidence)

    def _go_live(self, version: str, cause: str, extra: dict[str, Any] | None = None) -> None:
        evidence = {**self._evidence(version), **(extra or {})}
        before, guard = self.state.live, self.state.guards.get(version)
        if before and before != version:
            self._keep_levels(before, "replaced")
            self._to(before, Stage.RETIRED, "replaced", {"by": version})
        if version == self.state.challenger:
            self.state = replace(self.state, challenger=None, step=0)
        self.state = replace(self.state, live=version)
        if guard is None or cause == "operator":  # by hand: detectors start afresh, against the levels it had
            levels: dict[Stream, Level] = {stream: Level(mean) for stream, mean in self._levels(version).items()}
            guard = Guard(levels=levels, since=self.state.revision + 1)
        self._set_guard(version, replace(guard, silence=0.0, expected_pairs=0.0))
        self._to(version, Stage.LIVE, cause, evidence=evidence)

    def _out(self, version: str, cause: str, extra: dict[str, Any] | None = None) -> None:
        """Rejected from shadow, rolled back from service; the teacher answers in its place."""
        evidence = {**self._evidence(version), **(extra or {})}
        in_shadow = self.state.versions[version].stage is Stage.SHADOW
        self._keep_levels(version, cause)
        if version == self.state.challenger:
            self.state = replace(self.state, challenger=None, step=0, trial=Trial())
        if version == self.state.live:
            self.state = replace(self.state, live=None)
        if version == self.state.pinned:
            self.state = replace(self.state, pinned=None)
        self._to(version, Stage.REJECTED if in_shadow else Stage.ROLLED_BACK, cause, evidence=evidence)

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

    def _levels(self, version: str) -> dict[Stream, float]:
        """A version's own levels: of this service or, where it is in none, of the last one."""
        guard, known, trial = self.state.guards.get(version), self.state.versions[version], self.state.trial
        if guard is None:
            return known.levels
        found = {stream: level.mean for stream, level in guard.levels.items() if level.mean is not None}
        if known.stage is Stage.SHADOW and trial.pairs >= LEAST:
            found["quality"] = trial.lost / trial.pairs
        return found

    def _keep_levels(self, version: str, cause: str) -> None:
        """For another time in service. Whoever promotes it after a level's own alarm has accepted where it stands."""
        kept = {stream: mean for stream, mean in self._levels(version).items() if LEVEL_ALARMS[stream] != cause}
        known = replace(self.state.versions[version], levels=kept)
        self.state = replace(self.state, versions={**self.state.versions, version: known})

    def _change(self, **fields: Any) -> None:
        self.state = replace(self.state, revision=self.state.revision + 1, **fields)

    def _set_guard(self, version: str, guard: Guard) -> None:
        self.state = replace(self.state, guards={**self.state.guards, version: guard})

    def _evidence(self, version: str) -> dict[str, Any]:
        return evidence(self.state, self.policy, version)
