"""What was decided for one request: who answers, and who is asked besides."""

from enum import StrEnum

import msgspec

from router.tasks import TaskKind


class Arm(StrEnum):
    """Who answers."""

    TEACHER = "teacher"
    STUDENT = "student"


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision may depend on.

    `cluster` is the hashed stickiness key of the conversation (hex); `request_id` is unique and only selects which
    requests are shadowed; `ineligible` is the reason why no student may answer, or None.
    """

    request_id: str
    cluster: str
    ineligible: str | None = None


class ShadowCall(msgspec.Struct, frozen=True):
    """A second call whose answer no user sees."""

    arm: Arm
    version: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The arm that serves, its probability given the rollout in force, and the shadow calls.

    `threshold`: the confidence under which the answer of the version that is to serve is deferred to the teacher; None
    lets it serve whatever it says. `in_service`: the version whose outcomes the request belongs to, whichever of its
    two arms (the version, the teacher) was drawn; None where no version stands against the teacher. `audited`: the
    probability that the teacher is asked for an answer to this request too, 1.0 where it serves; not of an answer
    that is deferred to it, which it answers always. `answered`: the probability that it is asked for one at all,
    whichever arm is drawn.
    """

    route: str
    kind: TaskKind
    arm: Arm
    version: str | None
    propensity: float
    shadows: tuple[ShadowCall, ...] = ()
    eligible: bool = True
    reason: str | None = None
    policy_version: str
    rollout_revision: int
    threshold: float | None = None
    in_service: str | None = None
    audited: float = 1.0
    answered: float = 1.0
