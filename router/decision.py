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
    """The arm that serves, its probability given the rollout in force, and the shadow calls."""

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
