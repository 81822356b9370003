"""What an operator says about one route, validated; unknown keys are refused.

Every default is the production one; `docs/configuration.md` explains each, the statistics' own modules say why.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from router.policy_fields import OpenRate, Rate, Seconds, Strict
from router.policy_quality import OutcomePolicy, QualityPolicy, SelectivePolicy
from router.policy_rollout import RolloutPolicy
from router.policy_scrub import DEFAULT, LANGUAGES, Action, Language, check_actions
from router.policy_student import RetrainPolicy, StudentPolicy
from router.tasks import TaskKind

MEASURE = ("score", "reference", "judge")  # keys of `quality`: by these, and by its teachers, quality is measured


Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ConsentKeys(Strict):
    """Clients' API keys that say yes or no: the SHA-256 of each, in hexadecimal digits."""

    yes: tuple[Sha256, ...] = ()
    no: tuple[Sha256, ...] = ()


class CapturePolicy(Strict):
    """What is kept of an exchange. `keep`: words that scrubbing must leave as they are. `languages`: whose texts the
    models read. `scrub`: what is done with each kind of personal data, and by `default` with the others.
    `right_answers`: those that clients report of exchanges that are kept are kept, too, and learnt from.
    `mask_teachers`: the teacher is sent surrogates in place of personal data."""

    rate: Rate = 1.0
    consent: Literal["opt-out", "opt-in"] = "opt-out"
    consent_keys: ConsentKeys = ConsentKeys()
    retention_days: float = Field(30.0, gt=0)
    keep: tuple[str, ...] = ()
    mask_teachers: bool = False
    right_answers: bool = True
    languages: tuple[Language, ...] = LANGUAGES
    scrub: dict[str, Action] = {}

    @field_validator("scrub")
    @classmethod
    def _known(cls, value: dict[str, Action]) -> dict[str, Action]:
        check_actions(value)
        return value

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict has none of its own

    def action(self, entity: str) -> Action:
        """What is done with this kind of personal data."""
        return self.scrub.get(entity, self.scrub.get(DEFAULT, "surrogate"))

    @cached_property
    def scrubbing(self) -> str:
        """8 hex digits that change with whatever decides how a record is scrubbed."""
        return _digest([sorted(self.keep), sorted(self.languages), self.scrub])[:8]


class LatencyPolicy(Strict):
    """The SLO: at most 1 - quantile of the student's answers take longer than slo_ms, judged per time block.

    `test`: of the paired times, betting, or Wald's SPRT against a student that is slower in `good_rate` of pairs.
    """

    slo_ms: float = Field(800.0, gt=0)
    quantile: OpenRate = 0.95
    block: Seconds = Field(10.0, gt=0)
    margin: float = Field(0.0, ge=0.0, description="paired: the student may be this share slower than the teacher")
    test: Literal["betting", "sprt"] = "betting"
    good_rate: float = Field(0.25, gt=0.0, lt=0.5)


class ErrorPolicy(Strict):
    """Share of student requests that may fail: proven below the first to go live, rolled back above the second."""

    promote_below: OpenRate = 0.005
    rollback_above: OpenRate = 0.01

    @model_validator(mode="after")
    def _apart(self) -> "ErrorPolicy":
        if self.promote_below > self.rollback_above:
            raise ValueError(
                f"promote_below {self.promote_below} is above rollback_above {self.rollback_above}: a version could "
                "pass and be taken out for the same rate; give promote_below at most as much"
            )
        return self


class RoutePolicy(Strict):
    """One route: who teaches, who learns, and which evidence moves traffic."""

    kind: Literal[TaskKind.CHAT] = TaskKind.CHAT
    claims: tuple[str, ...] = ()
    teachers: tuple[str, ...] = Field(min_length=1, description="upstream/model, in fallback order")
    student: StudentPolicy | None = None
    capture: CapturePolicy = CapturePolicy()
    quality: QualityPolicy = QualityPolicy()
    latency: LatencyPolicy = LatencyPolicy()
    errors: ErrorPolicy = ErrorPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    selective: SelectivePolicy | None = None
    outcomes: OutcomePolicy | None = None
    retrain: RetrainPolicy = RetrainPolicy()

    @property
    def learns_tools(self) -> bool:
        """Whether a student learns to call tools: it writes its answers, and the route's score compares calls (else
        nothing would prove them)."""
        scores = self.quality.score if not isinstance(self.quality.score, str) else ()
        names = {self.quality.score, *(part.score for part in scores)}
        return self.student is not None and self.student.writes and "tool_calls" in names

    @model_validator(mode="after")
    def _seeing(self) -> "RoutePolicy":
        """Without pairs no alarm of quality can fire, and no challenger leaves shadow; and what a recipe can't do is
        refused rather than left undone."""
        if self.student is None:
            return self
        wrong = self.retrain.unheard(self.student.recipe)
        if self.rollout.holdback == 0.0 and self.quality.audit_rate == 0.0:
            wrong.append(
                "rollout.holdback and quality.audit_rate are both 0, so a live student would never be compared with "
                "its teacher again; set one of them above 0, for example audit_rate: 0.05"
            )
        if self.quality.reference == "self" and self.quality.audit_rate == 0.0:
            wrong.append(
                "quality.reference: self compares with a second answer of the teacher, which is asked for at "
                "quality.audit_rate; set that above 0, for example 0.1"
            )
        if self.quality.shadow_rate == 0.0:
            wrong.append(
                "quality.shadow_rate is 0, so a challenger would stay in shadow for ever; set it above 0, for "
                "example shadow_rate: 1.0"
            )
        if self.rollout.min_requests > self.quality.n_max:
            wrong.append(
                f"rollout.min_requests is {self.rollout.min_requests} and quality.n_max {self.quality.n_max}: a "
                "canary would be given up before it may move on; give min_requests at most as many"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with the version of what it then says."""
        copied = super().model_copy(update=update, deep=deep)
        for digest in ("version", "measure"):
            copied.__dict__.pop(digest, None)
        return copied

    @cached_property  # a digest costs 30 microseconds, and every decision names it
    def version(self) -> str:
        """12 hex digits that change whenever anything in the policy changes."""
        return _digest(self.model_dump(mode="json"))

    @cached_property
    def measure(self) -> str:
        """12 hex digits that change with what quality is measured by: score, reference, judge, teachers."""
        data = self.model_dump(mode="json")
        return _digest([data["teachers"], *(data["quality"][key] for key in MEASURE)])


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


@lru_cache(maxsize=64)
def parse_policy(text: str) -> RoutePolicy:
    """A policy as it stands in the log: JSON."""
    return RoutePolicy.model_validate(json.loads(text))
