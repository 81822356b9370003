"""Selection bias: once a student serves, the teacher answers only some requests, and not all are as likely to be among
them. Each example weighs as many requests as it stands for, in the loss and in what it is measured by.

    weight = min(1 / P(the teacher's answer is there), clip), divided by the mean over what is learnt from, or held out

(Horvitz & Thompson 1952; clipped as by Ionides 2008, which trades a little bias for a bounded variance.)
"""

from collector.record import Interaction
from router.decision import Arm


def chance(record: Interaction) -> float:
    """How likely the teacher was to answer this request, by the logged propensity: its share of the arms, and what is
    audited of the students'.

    What a student could not answer (it was not eligible, it failed, it deferred) the teacher always answers. A request
    of the teacher's own arm that a student would have deferred isn't known, and counts as one that it would have
    served. A record of before the chance was logged has that of its arm.
    """
    if record.arm is Arm.STUDENT and record.answers and record.answers[0].arm is Arm.TEACHER:
        return 1.0
    if record.answered is not None:
        return record.answered
    return record.propensity if record.arm is Arm.TEACHER else 1.0 - record.propensity


def inverse(probability: float, clip: float) -> float:
    """Its inverse, at most `clip`."""
    return clip if probability * clip <= 1.0 else 1.0 / probability
