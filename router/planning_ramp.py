"""How long each stage of a rollout lasts at a given traffic, and what it shows to users: the stages' needs (see
`rollout_needs`) as times, for a student that is only assumed.

A count becomes a time at the mean rate: the day's rhythm, and conversations that keep their student, are left out.
"""

import math

import msgspec
import numpy as np

from router.planning import PATHS, Ended, Expected, accepted_pairs, clean_requests, latency_pairs, quality_pairs
from router.planning import slo_blocks as blocks_until
from router.policy import RoutePolicy
from router.sequential.mixture import Floats
from router.sequential.selective import STARTS


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Eligible requests a second. `live`: a student already serves, so that a challenger's pairs come from its audits
    and the holdback. `labelled`: the share of requests whose right answer arrives, for `reference: truth`.
    `coverage`: the share that a student which serves selectively is sure of."""

    per_second: float
    live: bool = False
    labelled: float = 1.0
    coverage: float = 1.0


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stage on each path. `fraction`: the student's share of eligible traffic. `seconds`: until it ends; inf where
    the next one is never reached. `requests`: that the student answers meanwhile. `needs`: the median seconds of each
    thing that is waited for; all but the probe run at once."""

    name: str
    fraction: float
    seconds: Floats
    requests: Floats
    needs: dict[str, float]

    @property
    def limit(self) -> str:
        """What is waited for longest."""
        return max(self.needs, key=lambda need: self.needs[need])


class ShadowPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The time in shadow. `pairs`: until the quality test (or a certificate) ends; `decided`: seconds until the stage
    ends either way, the probe left out."""

    stage: StagePlan
    pairs: Ended
    decided: Floats


def pair_rate(policy: RoutePolicy, traffic: Traffic, fraction: float | None) -> float:
    """Quality pairs for each eligible request: in shadow (`fraction` None), or where the version gets `fraction`.
    Where it serves selectively, those pairs in which it is sure: they alone say what users get."""
    audit, holdback = policy.quality.audit_rate, policy.rollout.holdback
    second = audit if policy.quality.reference == "self" else 1.0  # of what the teacher serves, so much is asked twice
    labelled = traffic.labelled if policy.quality.reference == "truth" else 1.0
    if fraction is not None:
        return labelled * traffic.coverage * (second * holdback + audit * fraction)
    if traffic.live:
        return labelled * (second * holdback + audit * (1.0 - holdback))
    return labelled * second * policy.quality.shadow_rate


def shadowed(policy: RoutePolicy, traffic: Traffic) -> float:
    """The share of eligible requests on which a version in shadow and the teacher are both asked."""
    holdback = policy.rollout.holdback
    return holdback + policy.quality.audit_rate * (1.0 - holdback) if traffic.live else policy.quality.shadow_rate


def fraction(policy: RoutePolicy, step: int) -> float:
    """The share of eligible traffic that a canary step (from 0) gives to the student."""
    return min(policy.rollout.steps[step], 1.0 - policy.rollout.holdback)


def shadow(policy: RoutePolicy, expected: Expected, alpha: float, traffic: Traffic) -> ShadowPlan:
    """Until the quality test (with `selective`: a certificate) and the paired latency test have passed, and the first
    step's probe."""
    most = policy.quality.n_max
    if policy.selective:
        accepted = max(int(most * traffic.coverage), 1)
        own = alpha / STARTS  # what is known of the other thresholds, and would help, is left out
        found = accepted_pairs(policy.selective.max_risk, expected.loss, own, accepted)
        pairs = Ended(np.ceil(found.n / traffic.coverage).astype(np.int64), found.passed)
    else:
        pairs = quality_pairs(policy.quality, expected, alpha)
    latency = latency_pairs(policy.latency, expected.slower, alpha, most)
    by_quality = _seconds(pairs.n, traffic.per_second * pair_rate(policy, traffic, None))
    by_latency = _seconds(latency.n, traffic.per_second * shadowed(policy, traffic))
    both = np.maximum(by_quality, by_latency)
    passed = pairs.passed & latency.passed
    failed = np.minimum(np.where(pairs.passed, np.inf, by_quality), np.where(latency.passed, np.inf, by_latency))
    needs = {"pairs": float(np.median(by_quality)), "paired latency": float(np.median(by_latency))}
    probing = _probe(policy, expected, alpha, traffic, 0)
    if policy.rollout.probe:
        needs["probe"] = float(np.median(probing))
    stage = StagePlan(
        name="shadow",
        fraction=0.0,
        seconds=np.where(passed, both + probing, np.inf),
        requests=np.zeros(PATHS),
        needs=needs,
    )
    return ShadowPlan(stage=stage, pairs=pairs, decided=np.where(passed, both, failed))


def ramp(policy: RoutePolicy, expected: Expected, alpha: float, traffic: Traffic) -> list[StagePlan]:
    """Every canary step, each with the probe of the next. A step's SLO test has its share of alpha; the error test
    runs over all steps, and the last one alone waits for it."""
    steps, most = len(policy.rollout.steps), policy.quality.n_max
    asked = np.zeros(PATHS)
    found = list[StagePlan]()
    for step in range(steps):
        share = fraction(policy, step)
        rate = traffic.per_second * share  # deferred ones too: their waiting time is the student's
        blocks = _slo(policy, expected.slow, alpha / steps, rate, seed=10 + step)
        needs = {
            "dwell": np.full(PATHS, policy.rollout.dwell(step)),
            "requests": np.full(PATHS, policy.rollout.min_requests / rate),
            "blocks": blocks,
        }
        if step + 1 == steps:
            clean = clean_requests(policy.errors.promote_below, expected.failing, alpha, 2 * most)
            missing = np.maximum(clean.n - asked, 0.0)
            needs["errors"] = np.where(clean.passed & (missing <= most), missing / rate, np.inf)
        seconds = np.maximum.reduce(list(needs.values()))
        probing = _probe(policy, expected, alpha, traffic, step + 1)
        if step + 1 < steps and policy.rollout.probe:
            needs["probe"] = probing
        seconds = seconds + probing
        stage = StagePlan(
            name=f"step {step + 1}",
            fraction=share,
            seconds=seconds,
            requests=seconds * rate * traffic.coverage,
            needs={need: float(np.median(values)) for need, values in needs.items()},
        )
        found.append(stage)
        asked = asked + seconds * rate
    return found


def _probe(policy: RoutePolicy, expected: Expected, alpha: float, traffic: Traffic, step: int) -> Floats:
    """Seconds in which the student is asked at the rate of `step` before it is taken: as long as `probe` says, and
    until it has kept its SLO."""
    if not policy.rollout.probe or step >= len(policy.rollout.steps):
        return np.zeros(PATHS)
    rate = traffic.per_second * fraction(policy, step)
    kept = _slo(policy, expected.slow, alpha / len(policy.rollout.steps), rate, seed=100 + step)
    return np.maximum(kept, policy.rollout.probe)


def _slo(policy: RoutePolicy, slow: float, alpha: float, rate: float, *, seed: int) -> Floats:
    """Seconds until the SLO test passes at so many student requests a second: a block without one doesn't count."""
    length = policy.latency.block
    found = blocks_until(policy.latency.quantile, slow, alpha, rate * length, policy.quality.n_max, seed=seed).to_pass
    return np.asarray(found * length / -math.expm1(-rate * length))


def _seconds(counts: np.ndarray, rate: float) -> Floats:
    return np.asarray(counts / rate) if rate > 0.0 else np.full(PATHS, np.inf)
