"""Selection bias: once a student serves, the teacher answers only some requests, and not all are as likely to be among
them. Each example weighs as many requests as it stands for, in the loss and in what it is measured by.

    weight = min(1 / P(the teacher's answer is there), clip), divided by the mean over what is learnt from, or held out

(Horvitz & Thompson 1952; clipped as by Ionides 2008, which trades a little bias for a bounded variance.)
"""

from collector.record import Interaction
from router.decision import Arm


def chance(record: Interaction, audit_rate: float) -> float:
    """How likely the teacher was to answer this request, by the logged propensity.

    The teacher's share of the arms, and what is audited of the students'. What a student could not answer (it was not
    eligible, it failed, it deferred) the teacher always answers; so it does where another system logged it. A request
    of the teacher's own arm that a student would have deferred isn't known, and counts as one that it would have
    served; with two students in service, all that the one doesn't serve counts as the teacher's.
    """
    if not record.eligible or record.source:
        return 1.0
    if record.arm is Arm.TEACHER:
        teacher = record.propensity
    elif record.answers and record.answers[0].arm is Arm.TEACHER:
        return 1.0
    else:
        teacher = 1.0 - record.propensity
    return teacher + (1.0 - teacher) * audit_rate


def inverse(probability: float, clip: float) -> float:
    """Its inverse, at most `clip`."""
    return clip if probability * clip <= 1.0 else 1.0 / probability
