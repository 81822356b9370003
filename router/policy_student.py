"""What an operator says about a route's student, and about how it learns."""

from typing import Literal

from pydantic import Field

from router.policy_closed import ClosedPolicy
from router.policy_cycle import DriftPolicy, TrackingPolicy
from router.policy_data import DataPolicy
from router.policy_distil import DistilPolicy, Recipe
from router.policy_fields import Seconds, Strict
from router.policy_gate import GatePolicy


class StudentPolicy(Strict):
    """Which model learns, how, and where it is served."""

    base: str = "SmolLM2-135M-Instruct"
    engine: str = "local"
    recipe: Literal["lora", "linear", "encoder", "auto"] | Recipe = "lora"
    ladder: tuple[str, ...] = Field((), description="of recipe auto: larger bases, tried after the base, cheap to dear")
    max_prompt_bytes: int = Field(6000, gt=0, description="longer prompts are not eligible for the student")

    @property
    def may_choose(self) -> bool:
        """Whether a student may be one that chooses among few answers, and so can't tell tokens."""
        return self.recipe in ("linear", "encoder", "auto")


class RetrainPolicy(Strict):
    """When a training cycle starts, and how long it may learn. `every: 0s` turns the schedule off."""

    min_new_examples: int = Field(500, gt=0)
    every: Seconds = 86400.0
    max_examples: int = Field(20000, gt=0)
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(4e-4, gt=0)
    batch_size: int = Field(16, gt=0)
    lora_rank: int = Field(16, gt=0)
    max_tokens: int = Field(1024, gt=8, description="longer examples are left out")
    quantization: Literal["int8", "int4"] = "int8"
    held_out: str | None = Field(None, description="JSON lines of {messages, answer}: candidates are judged on these")
    seed: int = 0
    closed: ClosedPolicy = ClosedPolicy()
    data: DataPolicy = DataPolicy()
    gate: GatePolicy = GatePolicy()
    drift: DriftPolicy | None = None
    tracking: TrackingPolicy | None = None
    distil: DistilPolicy = DistilPolicy()
