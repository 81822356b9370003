"""The decision for one request. Pure: the same request and rollout give the same decision, on every worker."""

import hashlib
from collections.abc import Collection

from router.decision import Arm, Decision, RequestFacts, ShadowCall
from router.policy import RoutePolicy
from router.registry import Rollout, Stage


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
        return _decision(policy, rollout, Arm.TEACHER, None, 1.0, (), reason=facts.ineligible)
    place = unit("arm", rollout.route, facts.cluster)
    served = 1.0 - policy.rollout.holdback
    canary = rollout.challenger if rollout.stage is Stage.CANARY and rollout.challenger in ready else None
    shadow = rollout.challenger if rollout.stage is Stage.SHADOW and rollout.challenger in ready else None
    live = rollout.live if rollout.live in ready else None
    first = min(rollout.fraction, served) if canary else 0.0
    second = max(served - min(rollout.fraction, served), 0.0) if rollout.stage is Stage.CANARY else served
    share_live = second if live else 0.0
    start_live = min(rollout.fraction, served) if rollout.stage is Stage.CANARY else 0.0
    audited = unit("audit", rollout.route, facts.request_id) < policy.quality.audit_rate
    if canary and place < first:
        return _student(policy, rollout, canary, first, audited=audited, rider=None)
    if live and start_live <= place < served:
        return _student(policy, rollout, live, share_live, audited=audited, rider=shadow)
    asked = [version for version in (canary, live) if version and place >= served]
    if shadow and (live or unit("shadow", rollout.route, facts.request_id) < policy.quality.shadow_rate):
        asked.append(shadow)
    shadows = tuple(ShadowCall(Arm.STUDENT, version) for version in asked)
    return _decision(policy, rollout, Arm.TEACHER, None, 1.0 - first - share_live, shadows)


def _student(
    policy: RoutePolicy, rollout: Rollout, version: str, propensity: float, *, audited: bool, rider: str | None
) -> Decision:
    shadows: tuple[ShadowCall, ...] = (ShadowCall(Arm.TEACHER),) if audited else ()
    if audited and rider:
        shadows = (*shadows, ShadowCall(Arm.STUDENT, rider))
    return _decision(policy, rollout, Arm.STUDENT, version, propensity, shadows)


def _decision(
    policy: RoutePolicy,
    rollout: Rollout,
    arm: Arm,
    version: str | None,
    propensity: float,
    shadows: tuple[ShadowCall, ...],
    *,
    reason: str | None = None,
) -> Decision:
    return Decision(
        route=rollout.route,
        kind=policy.kind,
        arm=arm,
        version=version,
        propensity=propensity,
        shadows=shadows,
        eligible=reason is None,
        reason=reason,
        policy_version=policy.version,
        rollout_revision=rollout.revision,
    )
