"""Which alarm a version's detectors raise, and which warnings. Two detectors a stream: worse than what is borne of any
student, and more than 5 points worse than the version's own level (a warning at 2 points)."""

import math

import msgspec

from router.policy import RoutePolicy
from router.policy_rollout import RolloutPolicy
from router.rollout_state import Guard, Level, Stream

LEAST_EXPECTED = 5.0  # pairs that must have been due before their silence means anything
SETTLING = 10.0  # seconds in which every worker has seen a change, and its first pairs are scored

LEVEL_ALARMS: dict[Stream, str] = {
    "quality": "quality_drop_alarm",
    "errors": "error_rise_alarm",
    "slo": "slo_rise_alarm",
}


def alarm(guard: Guard, policy: RoutePolicy, *, ready: bool) -> str | None:
    """The cause for which a version goes out of service; the first, where there are several."""
    rules = policy.rollout
    boundary = math.log(rules.detector_threshold)
    for cause, detector in (
        ("quality_alarm", guard.quality),
        (LEVEL_ALARMS["quality"], _level(guard, "quality").worse),
        ("error_alarm", guard.errors),
        ("slo_alarm", guard.slo),
        ("outcome_alarm", guard.outcomes),
        (LEVEL_ALARMS["errors"], _level(guard, "errors").worse),
        (LEVEL_ALARMS["slo"], _level(guard, "slo").worse),
    ):
        if detector.reached(boundary):
            return cause
    return "no_pairs_alarm" if _silent(guard, policy, ready=ready) else None


def _silent(guard: Guard, policy: RoutePolicy, *, ready: bool) -> bool:
    """Whether pairs have stopped coming. Labels come when somebody gives them, so with `truth` no number of them is
    due, and only a long silence in which there was traffic is one."""
    rules, due, silence = policy.rollout, guard.expected_pairs, guard.silence
    if policy.quality.reference == "truth":
        long = silence >= rules.no_pairs_after + policy.quality.truth_within
        return long and (due >= rules.no_pairs_requests or not ready)
    missing = due >= rules.no_pairs_requests and silence >= SETTLING
    long = silence >= rules.no_pairs_after
    return missing or (long and (due >= LEAST_EXPECTED or not ready))


def warned(guard: Guard, rules: RolloutPolicy) -> Guard:
    """The guard with every stream marked that has fallen 2 points below its level; a mark stays for people to see."""
    boundary = math.log(rules.detector_threshold)
    new = {s: level for s, level in guard.levels.items() if not level.warned and level.warning.reached(boundary)}
    if not new:
        return guard
    marked = {stream: msgspec.structs.replace(level, warned=True) for stream, level in new.items()}
    return msgspec.structs.replace(guard, levels={**guard.levels, **marked})


def _level(guard: Guard, stream: Stream) -> Level:
    return guard.levels.get(stream, Level())
