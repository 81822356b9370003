"""Selective serving in a rollout: what a version's pairs say of its thresholds, and which one is in force.

In shadow every pair feeds the thresholds' tests; the first step opens when a threshold that covers enough is certified.
In service the threshold in force follows its certificates, and each change is a decision. Without a certificate a
canary goes back to shadow, where its tests go on; a live version goes out, and so does a canary whose last certificate
the detector took back. But one that an operator promoted, or that served before the risk was set anew, keeps its
threshold (the first, where it had none) until its tests have certified one, and is watched meanwhile by the detector of
quality on what it serves.

Pairs of the teacher's users (shadow, holdback) weigh as the served and the deferred ones together: conversations are
assigned to the arms at random, so both are samples of the same requests.

A pair's loss is max(-D, 0): where a reference can be beaten, better answers elsewhere make no lost one good.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from router.decision import Arm
from router.errors import RouterError
from router.evidence import Observation
from router.policy import RoutePolicy
from router.policy_quality import SelectivePolicy
from router.registry import Stage
from router.rollout_state import Guard, VersionState
from router.sequential import quality
from router.sequential.selective import Selective

# Of a version that came without: confidence is a calibrated probability of agreeing, so these are risks from 10% on.
DEFAULT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 1e-6)

replace = msgspec.structs.replace


def start(known: VersionState) -> Selective:
    """The tests of a version's thresholds; of the default ones where its own can't be used."""
    try:
        return Selective.start(known.thresholds, known.shares)
    except RouterError:
        return Selective.start(DEFAULT)


def pairs(
    guard: Guard, seen: Sequence[Observation], policy: RoutePolicy, rules: SelectivePolicy, stage: Stage
) -> Guard:
    """The guard after more pairs."""
    confidence = np.clip(np.array([one.confidence or 0.0 for one in seen]), 0.0, 1.0)
    loss = np.clip(np.array([(one.pair_value or 0.0) - one.value for one in seen]), 0.0, 1.0)
    if guard.selective is not None:
        all_audited = stage is Stage.LIVE and guard.served < policy.rollout.parallel
        rarest = 1.0 if all_audited else policy.quality.audit_rate
        weight = np.array([min(1.0, rarest / one.inclusion) if one.arm is Arm.STUDENT else 1.0 for one in seen])
        folded = guard.selective.fold(
            confidence,
            loss,
            np.maximum(weight, 1e-9),
            max_risk=rules.max_risk,
            alpha=guard.alpha,
            log_boundary=math.log(policy.rollout.detector_threshold),
        )
        guard = replace(guard, selective=folded)
    if guard.threshold is not None and not guard.certified:
        served = loss[confidence >= guard.threshold]
        guard = replace(guard, quality=guard.quality.fold(quality.watch(-served, rules.max_risk)))
    return guard


def worth_serving(guard: Guard, rules: SelectivePolicy) -> bool:
    """Whether a certified threshold covers enough."""
    force = guard.selective.in_force if guard.selective else None
    return force is not None and force.coverage >= rules.min_coverage


def hopeless(guard: Guard, rules: SelectivePolicy, n_max: int) -> str | None:
    """Why no threshold that covers enough will be certified: `selective_` and undecided, too_slow or inferior."""
    if guard.selective is None:
        return None
    why = guard.selective.futile(max_risk=rules.max_risk, alpha=guard.alpha, n_max=n_max)
    if why is None and guard.selective.n >= n_max and not worth_serving(guard, rules):
        why = "undecided"
    return why and f"selective_{why}"


def moved(guard: Guard, stage: Stage) -> tuple[Guard, str | None]:
    """The guard of a version in service with the threshold that its certificates give it, and the cause of a change:
    threshold_set, threshold_loosened, threshold_tightened, or selective_lost, where it has to go."""
    if guard.selective is None or stage is Stage.SHADOW:
        return guard, None
    force = guard.selective.in_force
    if force is None:
        return guard, "selective_lost" if guard.certified else None
    now = force.threshold
    if now == guard.threshold:
        return replace(guard, certified=True), None
    before, guard = guard.threshold, replace(guard, threshold=now, certified=True)
    if before is None:
        return guard, "threshold_set"
    return guard, "threshold_loosened" if now < before else "threshold_tightened"


def rows(guard: Guard) -> dict[str, Any]:
    """For people: the threshold in force with its coverage and risk, and the evidence of each."""
    tested = guard.selective
    if tested is None:
        return {}
    found: dict[str, Any] = {
        "threshold": guard.threshold,
        "certified": guard.certified,
        "taken_back": tested.taken_back,
        "thresholds": [
            {
                "threshold": one.threshold,
                "n": one.accepted,
                "coverage": round(one.coverage, 6),
                "risk": None if one.risk is None else round(one.risk, 6),
                "log_e": round(one.log_value, 6),
            }
            for one in tested.tested
        ],
    }
    force = tested.in_force
    if force is not None:
        found |= {"coverage": round(force.coverage, 6), "risk": round(force.risk or 0.0, 6)}
        found["risk_bound"] = round(force.bound(guard.alpha), 6)
    return found
