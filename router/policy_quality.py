"""What an operator says about quality: which score, against which reference, by which test, and selective serving."""

from typing import Any, Literal

from pydantic import Field, model_validator

from router.policy_fields import OpenRate, Rate, Seconds, Strict

ScoreName = Literal["exact", "json_fields", "tool_calls", "numeric", "token_f1", "rouge_l", "embedding"]
Reference = Literal["agreement", "self", "judge", "truth"]


class WeightedScore(Strict):
    """One of several scores. `tolerance`: of `numeric`, the relative difference that still counts as equal."""

    score: ScoreName
    weight: float = Field(1.0, gt=0.0)
    tolerance: float = Field(0.01, ge=0.0)


class JudgePolicy(Strict):
    """Who judges pairs: a route of this gateway that captures nothing and has no student."""

    route: str
    criteria: str = "Which answer serves the user better: correct, complete, and in the form that was asked for?"
    concurrency: int = Field(4, gt=0)


class QualityPolicy(Strict):
    """The quality test: pass when E[D] > -margin is proven at level alpha; D by `reference`, see statistics.

    `discordance`: psi of `test: sprt`, the share of pairs that differ, where D is -1, 0 or 1. `good_rate`: of
    `test: sprt` with `reference: agreement`, the agreement that a good student is known to have.
    """

    score: ScoreName | tuple[WeightedScore, ...] = "json_fields"
    reference: Reference = "agreement"
    test: Literal["betting", "sprt"] = "betting"
    margin: OpenRate = 0.07
    alpha: OpenRate = 0.05
    spend: Literal["version", "route"] = "version"
    discordance: OpenRate | None = None
    good_rate: OpenRate | None = None
    n_max: int = Field(5000, gt=0)
    shadow_rate: Rate = 1.0
    audit_rate: Rate = 0.05
    judge: JudgePolicy | None = None
    truth_within: Seconds = 3600.0

    @model_validator(mode="before")
    @classmethod
    def _margin_of_its_reference(cls, data: Any) -> Any:
        """0.07 is the field's "at least 93% of the teacher"; where a teacher can be beaten, less is borne."""
        if isinstance(data, dict) and "margin" not in data and data.get("reference", "agreement") != "agreement":
            return {**data, "margin": 0.02}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "QualityPolicy":
        if isinstance(self.score, tuple) and not self.score:
            raise ValueError("score is an empty list; name at least one score, for example exact")
        names = [one.score for one in self.score] if isinstance(self.score, tuple) else []
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"score names {', '.join(twice)} more than once; give each score one weight")
        if self.reference == "judge" and self.judge is None:
            raise ValueError("reference: judge needs judge: {route: NAME}, a route that captures nothing")
        if self.test == "sprt" and self.reference == "agreement":
            if self.good_rate is None:
                raise ValueError("test: sprt with reference: agreement needs good_rate, for example 0.97")
            if self.good_rate <= 1.0 - self.margin + 1e-9:
                raise ValueError(
                    f"good_rate {self.good_rate} must be above 1 - margin = {1.0 - self.margin:g}, or a good student "
                    "and one at the margin would be the same"
                )
        elif self.test == "sprt":
            if self.discordance is None:
                raise ValueError("test: sprt needs discordance, the share of pairs that differ, for example 0.095")
            if self.discordance <= self.margin + 1e-9:
                raise ValueError(
                    f"discordance {self.discordance} must be above the margin {self.margin}: where fewer pairs differ "
                    "than the margin, no student could be worse than it; use test: betting"
                )
        return self


class SelectivePolicy(Strict):
    """The student answers what it is sure of, the teacher the rest.

    `max_risk`: the mean loss (1 - score, or what the reference makes of it) that its served answers may have.
    `min_coverage`: the share of eligible requests below which it isn't worth serving.
    """

    max_risk: float = Field(0.03, gt=0.0, le=0.5)
    min_coverage: Rate = 0.05


class OutcomePolicy(Strict):
    """Outcomes that clients report (thumbs, resolution, conversion), in [0, 1]; harm alone is judged by them.

    `window`: from a conversation's first answer; no report within it counts as 0. `margin`: the drop that is borne.
    """

    window: Seconds = Field(86400.0, gt=0.0)
    margin: OpenRate = 0.05
