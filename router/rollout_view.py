"""What gateway workers see of a route's state."""

import msgspec

from router.policy import parse_policy
from router.registry import Rollout
from router.rollout_pairs import fraction
from router.rollout_state import RouteState


def view(state: RouteState) -> Rollout:
    """The rollout that workers read; an empty one before the first policy."""
    if state.policy is None:
        return Rollout(route=state.route, revision=state.revision)
    policy, challenger, live = parse_policy(state.policy), state.challenger, state.live
    probe = state.trial.probe
    return Rollout(
        route=state.route,
        revision=state.revision,
        live=live,
        challenger=challenger,
        stage=state.versions[challenger].stage if challenger else None,
        step=state.step,
        fraction=fraction(state, policy),
        paused=state.paused,
        challenger_threshold=state.guards[challenger].threshold if challenger else None,
        live_threshold=state.guards[live].threshold if live else None,
        probe=probe.fraction if challenger and probe else 0.0,
        audit_all=live is not None and state.guards[live].served < policy.rollout.parallel,
    )


def shown_anew(before: RouteState, after: RouteState) -> RouteState:
    """`after`, with a new revision if workers would see something else than before under the old one."""
    if after.revision == before.revision and view(after) != view(before):
        return msgspec.structs.replace(after, revision=after.revision + 1)
    return after
