"""Which test a policy asks for, and the boundary that it needs."""

import math

from router.policy import LatencyPolicy, RoutePolicy
from router.policy_quality import QualityPolicy
from router.rollout_state import Trial
from router.sequential import quality, relative_latency, spending, sprt
from router.sequential.mixture import Floats
from router.sequential.quality import Spread


def alpha(policy: QualityPolicy, number: int) -> float:
    """What a route's `number`-th trial may spend: another version, or the same one under another policy."""
    return spending.alpha_of(policy.alpha, policy.spend, max(number, 1))


def quality_passes(differences: Floats, policy: QualityPolicy, *, spread: Spread = quality.UNSEEN) -> Floats:
    """Log factors of the quality test; `spread`: of the pairs before these."""
    if policy.test == "betting":
        return quality.passes(differences, policy.margin, spread=spread)
    if policy.reference == "agreement":
        return sprt.agreement(differences, policy.margin, policy.good_rate or 1.0)
    return sprt.paired(differences, policy.margin, policy.discordance or 1.0)


def latency_passes(pairs: Floats, policy: LatencyPolicy) -> Floats:
    """Log factors of the test of paired times: (n, 2) milliseconds of student and teacher."""
    slower = relative_latency.slower(pairs[:, 0], pairs[:, 1], policy.margin)
    return sprt.slower(slower, policy.good_rate) if policy.test == "sprt" else relative_latency.passes(slower)


def sprt_failed(trial: Trial, policy: QualityPolicy) -> bool:
    """Whether Wald's lower boundary was reached: the student is no better than one at the margin."""
    return policy.test == "sprt" and trial.quality.log_value <= sprt.boundaries(trial.alpha)[0]


def most_difference(policy: QualityPolicy) -> float:
    """The largest D that the reference allows: whoever is compared with the teacher's own answers can't beat them."""
    return 0.0 if policy.reference == "agreement" else 1.0


def boundary(trial: Trial) -> float:
    """What a test must reach: log 1/alpha."""
    return -math.log(trial.alpha)


def step_boundary(trial: Trial, policy: RoutePolicy) -> float:
    """What the SLO test of one step must reach: its alpha is split over the steps."""
    return boundary(trial) + math.log(len(policy.rollout.steps))
