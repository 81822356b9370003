"""How many pairs are due: missing evidence is never good news."""

from collections.abc import Mapping

import msgspec

from router.policy import RoutePolicy
from router.registry import Stage
from router.rollout_state import RouteState


def fraction(state: RouteState, policy: RoutePolicy) -> float:
    """The challenger's share of eligible traffic."""
    if state.challenger is None or state.versions[state.challenger].stage is not Stage.CANARY:
        return 0.0
    return min(policy.rollout.steps[state.step], 1.0 - policy.rollout.holdback)


def expect_pairs(state: RouteState, requests: Mapping[int, int], policy: RoutePolicy) -> RouteState:
    """So many eligible requests came since the last tick, by the revision that decided them: where a version was
    watched and ready, some of them owed a pair."""
    for version, guard in state.guards.items():
        if state.versions[version].ready:
            asked = sum(n for revision, n in requests.items() if revision >= guard.since)
            due = guard.expected_pairs + asked * _pair_rate(state, version, policy)
            guard = msgspec.structs.replace(guard, expected_pairs=due)
            state = msgspec.structs.replace(state, guards={**state.guards, version: guard})
    return state


def _pair_rate(state: RouteState, version: str, policy: RoutePolicy) -> float:
    """The probability that an eligible request yields a pair of this version."""
    share = fraction(state, policy)
    holdback, audit = policy.rollout.holdback, policy.quality.audit_rate
    second = audit if policy.quality.reference == "self" else 1.0  # a second teacher call is made for so many
    if policy.quality.reference == "truth":
        return 1.0  # any may be labelled: how many are is not ours to say (see rollout_alarms)
    if state.versions[version].stage is Stage.SHADOW:
        return second * holdback + audit * (1.0 - holdback) if state.live else second * policy.quality.shadow_rate
    served = share if version == state.challenger else 1.0 - holdback - share
    return second * holdback + audit * max(served, 0.0)
