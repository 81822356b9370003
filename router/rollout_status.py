"""A version's evidence against its boundaries, for people, plots and the record of a decision."""

import math
from typing import Any

from router import rollout_selective
from router.policy import RoutePolicy, parse_policy
from router.rollout_pairs import fraction
from router.rollout_state import RouteState, Stream
from router.rollout_tests import boundary, most_difference, step_boundary
from router.sequential import Mixture

WARNINGS: dict[Stream, str] = {
    "quality": "quality is more than 2 points below its level",
    "errors": "errors are more than 2 points above their level",
    "slo": "slow answers are more than 2 points above their level",
}
DECOMMISSION = (
    "it has kept its level beside the teacher for as long as was asked; the teacher is needed for audits, the holdback "
    "and what is not eligible alone, and capacity kept for more may be given back"
)
_LEVEL_ROWS: dict[Stream, tuple[str, str]] = {
    "quality": ("below_level", "warning"),
    "errors": ("errors_above_level", "errors_warning"),
    "slo": ("slo_above_level", "slo_warning"),
}


def evidence(state: RouteState, policy: RoutePolicy, version: str) -> dict[str, Any]:
    """`tests` (of the challenger) and `alarms`: name -> n, log e-value, log boundary; and the counts.

    `interval`: of the mean difference, at every look. `level`: mean difference at which it was promoted;
    `errors_level`, `slo_level`: shares. `warnings`: in words, and only where there are any.
    """
    found: dict[str, Any] = {}
    trial, guard = state.trial, state.guards.get(version)
    if version == state.challenger:
        strict, by_step = boundary(trial), step_boundary(trial, policy)
        tests = {"quality": trial.quality, "latency": trial.latency, "slo": trial.slo, "errors": trial.errors}
        found["tests"] = {name: _test(test, by_step if name == "slo" else strict) for name, test in tests.items()}
        if trial.probe:
            found["tests"]["probe"] = _test(trial.probe.slo, by_step)
            found["probe"] = {"fraction": trial.probe.fraction, "seconds": round(trial.probe.seconds, 3)}
        found["pairs"] = trial.pairs
        found["mean_difference"] = -trial.lost / trial.pairs if trial.pairs else None
        if trial.pairs:
            found["interval"] = [
                round(x, 6) for x in trial.interval.bounds(least=-1.0, most=most_difference(policy.quality))
            ]
        found["requests"], found["dwell"] = trial.requests, round(trial.dwell, 3)
    if guard:
        limit = math.log(policy.rollout.detector_threshold)
        detectors = {"quality": guard.quality, "errors": guard.errors, "slo": guard.slo}
        if policy.outcomes:
            detectors["outcomes"] = guard.outcomes
        known = {stream: level for stream, level in guard.levels.items() if level.mean is not None}
        for stream, level in known.items():
            detectors |= dict(zip(_LEVEL_ROWS[stream], (level.worse, level.warning), strict=True))
        found["alarms"] = {name: _row(d.n, d.log_value, limit) for name, d in detectors.items()}
        lost = guard.levels["quality"].mean if "quality" in guard.levels else None
        found["level"] = None if lost is None else -lost
        found |= {f"{stream}_level": level.mean for stream, level in known.items() if stream != "quality"}
        found["warned"] = any(level.warned for level in known.values())
        if found["warned"]:
            found["warnings"] = [WARNINGS[stream] for stream, level in known.items() if level.warned]
        if policy.selective:
            found["selective"] = rollout_selective.rows(guard)
        if version == state.live and 0.0 < policy.rollout.parallel <= guard.served and not found["warned"]:
            found["note"] = DECOMMISSION
        found["seconds_without_a_pair"] = round(guard.silence, 3)
    return found


def status(state: RouteState) -> dict[str, Any]:
    """The whole route: who serves how much, where every version stands, and the evidence of those in service."""
    policy = parse_policy(state.policy) if state.policy else None
    return {
        "live": state.live,
        "challenger": state.challenger,
        "step": state.step,
        "steps": list(policy.rollout.steps) if policy else [],
        "fraction": fraction(state, policy) if policy else 0.0,
        "paused": state.paused,
        "paused_by": state.paused_by,
        "pinned": state.pinned,
        "pinned_by": state.pinned_by,
        "versions": {version: known.stage.value for version, known in state.versions.items()},
        "ready": [version for version, known in state.versions.items() if known.ready],
        "evidence": {version: evidence(state, policy, version) for version in state.guards} if policy else {},
    }


def _test(test: Mixture, log_boundary: float) -> dict[str, Any]:
    return {**_row(test.n, test.log_value, log_boundary), "passed": test.reached(log_boundary)}


def _row(n: int, log_value: float, log_boundary: float) -> dict[str, Any]:
    return {"n": n, "log_e": round(log_value, 6), "log_boundary": round(log_boundary, 6)}
