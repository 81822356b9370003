"""The decision for one request. Pure: the same request and rollout give the same decision, on every worker.

Who is asked besides, in short. Each rate draws by request id, each with a draw of its own.

* The version under test in shadow: on `shadow_rate` of the teacher's requests, and on `probe` of them where that is
  more; beside a live student, where the teacher answers too, and on `probe` of the rest.
* The canary: on the holdback, and, while it is probed, on the requests with a place between its own share and the
  probe's, so that it carries the load of its next step before any user is in it.
* The live version: on the holdback.
* The teacher: on `audit_rate` of the students' answers; on all of the live version's with `audit_all`.
* With `reference: self` a pair needs a student's answer and two of the teacher's. The second one is asked for on
  `audit_rate` of the students' answers (these are then the audited ones) and on `audit_rate` of the requests that the
  teacher serves and a student shadows; so `audit_rate` of all that could be compared makes pairs, whoever served, and
  also where an answer is deferred.
"""

import hashlib
from collections.abc import Collection

import msgspec

from router.decision import Arm, Decision, RequestFacts, ShadowCall
from router.policy import RoutePolicy
from router.registry import Rollout, Stage

_TEACHER = ShadowCall(Arm.TEACHER)


def unit(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone, uniform over them."""
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def decide(policy: RoutePolicy, rollout: Rollout, facts: RequestFacts, *, ready: Collection[str]) -> Decision:
    """Who answers, with which probability, and who is asked besides.

    The cluster's place u in [0, 1) is fixed and knows no version, so that a user who was in the 5% stays in at 10%:
    u < fraction goes to the canary, u < 1 - holdback to the live version, the rest to the teacher. A version that
    is not in `ready` gets no traffic: its share goes to the teacher.
    """
    if facts.ineligible is not None:
        return _Choice(policy, rollout, facts).made(Arm.TEACHER, None, 1.0, reason=facts.ineligible)
    place = unit("arm", rollout.route, facts.cluster)
    served = 1.0 - policy.rollout.holdback
    share = min(rollout.fraction, served) if rollout.stage is Stage.CANARY else 0.0
    challenger = rollout.challenger if rollout.challenger in ready else None
    canary = challenger if rollout.stage is Stage.CANARY else None
    shadow = challenger if rollout.stage is Stage.SHADOW else None
    live = rollout.live if rollout.live in ready else None
    first = share if canary else 0.0
    second = max(served - share, 0.0) if live else 0.0
    rate = policy.quality.audit_rate
    answered = 1.0 - first * (1.0 - rate) - (0.0 if rollout.audit_all else second * (1.0 - rate))
    choice = _Choice(policy, rollout, facts, answered)
    if canary and place < first:
        return choice.canary(canary, first)
    probed = canary if place < min(rollout.probe, served) else None
    if live and share <= place < served:
        # Beside a canary it is the canary that stands against the teacher; what the live version serves is of neither.
        return choice.live(live, second, probed=probed, shadow=shadow, in_service=None if first else live)
    asked = [version for version in (canary, live) if version and place >= served]
    if probed:
        asked.append(probed)
    if shadow and (live or choice.drawn("shadow", max(policy.quality.shadow_rate, rollout.probe))):
        asked.append(shadow)
    in_service = canary if first else live if second else None
    return choice.teacher(1.0 - first - second, asked, in_service=in_service)


class _Choice(msgspec.Struct, frozen=True):
    """What all decisions for one request have in common."""

    policy: RoutePolicy
    rollout: Rollout
    facts: RequestFacts
    answered: float = 1.0

    def drawn(self, name: str, rate: float) -> bool:
        """Whether this request is among the share `rate` of all; each name draws anew."""
        return unit(name, self.rollout.route, self.facts.request_id) < rate

    def canary(self, version: str, propensity: float) -> Decision:
        """The canary serves."""
        return self.made(
            Arm.STUDENT,
            version,
            propensity,
            self._audits(),
            in_service=version,
            threshold=self.rollout.challenger_threshold,
            audited=self.policy.quality.audit_rate,
        )

    def live(
        self, version: str, propensity: float, *, probed: str | None, shadow: str | None, in_service: str | None
    ) -> Decision:
        """The live version serves. `probed`: the canary, where it is asked besides; `shadow`: who is in shadow."""
        rollout, quality = self.rollout, self.policy.quality
        audits = self._audits()
        # Where the teacher is asked anyway, a pair of the version in shadow costs the engine alone.
        rate = max(quality.shadow_rate, rollout.probe) if rollout.audit_all else rollout.probe
        rider = shadow if shadow and (audits or self.drawn("shadow", rate)) else probed
        if rollout.audit_all and not audits:
            audits = (_TEACHER,)
        return self.made(
            Arm.STUDENT,
            version,
            propensity,
            (*audits, ShadowCall(Arm.STUDENT, rider)) if rider else audits,
            in_service=in_service,
            threshold=rollout.live_threshold,
            audited=1.0 if rollout.audit_all else quality.audit_rate,
        )

    def teacher(self, propensity: float, asked: Collection[str], *, in_service: str | None) -> Decision:
        """The teacher serves. `asked`: the versions that are asked besides."""
        shadows = tuple([ShadowCall(Arm.STUDENT, version) for version in asked])
        if shadows and self._twice and self.drawn("second", self.policy.quality.audit_rate):
            shadows = (*shadows, _TEACHER)
        return self.made(Arm.TEACHER, None, propensity, shadows, in_service=in_service)

    @property
    def _twice(self) -> bool:
        """Whether a pair needs two answers of the teacher."""
        return self.policy.quality.reference == "self"

    def _audits(self) -> tuple[ShadowCall, ...]:
        """The teacher calls, if the audit draws this student's answer."""
        rate = self.policy.quality.audit_rate
        if self._twice:
            return (_TEACHER, _TEACHER) if self.drawn("second", rate) else ()
        return (_TEACHER,) if self.drawn("audit", rate) else ()

    def made(
        self,
        arm: Arm,
        version: str | None,
        propensity: float,
        shadows: tuple[ShadowCall, ...] = (),
        *,
        reason: str | None = None,
        in_service: str | None = None,
        threshold: float | None = None,
        audited: float = 1.0,
    ) -> Decision:
        """The decision."""
        return Decision(
            route=self.rollout.route,
            kind=self.policy.kind,
            arm=arm,
            version=version,
            propensity=propensity,
            shadows=shadows,
            eligible=reason is None,
            reason=reason,
            policy_version=self.policy.version,
            rollout_revision=self.rollout.revision,
            threshold=threshold,
            in_service=in_service,
            audited=audited,
            answered=self.answered,
        )
