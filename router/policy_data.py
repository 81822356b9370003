"""What an operator says about how a route's log becomes training data; see docs/training-data.md."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from router.policy_fields import OpenRate, Rate, Strict


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class Patterns(Strict):
    """Regular expressions, looked for anywhere in the prompt (all but system messages) and in the answer."""

    prompt: tuple[Pattern, ...] = ()
    answer: tuple[Pattern, ...] = ()


class ConsistencyPolicy(Strict):
    """The teacher answers a share of the prompts again, through `route`. Below `agree_from` it contradicts itself: then
    the example is dropped, or weighs as much as the two answers agree."""

    route: str
    share: Rate = 0.05
    most: int = Field(200, gt=0)
    concurrency: int = Field(4, gt=0, le=64)
    agree_from: Rate = 0.5
    then: Literal["drop", "weigh"] = "drop"


class BalancePolicy(Strict):
    """No cluster of meanings has more training examples than `most` times its even share."""

    clusters: int = Field(64, gt=1, le=1024)
    most: float = Field(3.0, ge=1.0)


class SafetyPolicy(Strict):
    """JSON lines of {messages, answer} that join the training examples, up to a share of them."""

    file: str
    share: OpenRate = 0.05


class DataPolicy(Strict):
    """From the log to a data set. The rates' sources stand in docs/training-data.md."""

    refusals: Literal["keep", "drop"] = "keep"
    secrets: Literal["keep", "drop"] = Field("drop", description="answers with secrets that their requests don't hold")
    reasoning: Literal["keep", "drop"] = "drop"
    min_characters: int = Field(1, gt=0, description="of an answer")
    max_characters: int | None = Field(None, gt=0, description="of prompt and answer together")
    allow: Patterns = Patterns()
    deny: Patterns = Patterns()
    consistency: ConsistencyPolicy | None = None
    most_alike: int | None = Field(100, gt=0, description="of examples that are near-duplicates; null: however many")
    semantic: float | None = Field(None, gt=0.5, le=1.0, description="cosine from which two prompts mean the same")
    balance: BalancePolicy | None = None
    propensity_clip: float = Field(10.0, ge=1.0, description="the greatest inverse propensity")
    replay: Rate = Field(0.1, description="share of max_examples that is drawn from before the newest ones")
    newest: OpenRate = Field(0.1, description="share of the log's range whose held-out examples are reported apart")
    regression: int = Field(200, ge=0, description="examples of the frozen suite")
    corrections: str | None = Field(None, description="JSON lines of {id, answer}: right answers, by request id")
    safety: SafetyPolicy | None = None

    @model_validator(mode="after")
    def _possible(self) -> "DataPolicy":
        if self.balance is not None and self.semantic is None:
            raise ValueError("balance needs the meanings of prompts; set semantic, for example semantic: 0.95")
        return self
