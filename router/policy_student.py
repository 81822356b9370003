"""What an operator says about a route's student, and about how it learns."""

from typing import Literal

from pydantic import Field

from router.policy_cycle import Cluster, DriftPolicy, TrackingPolicy
from router.policy_fields import Seconds, Strict


class StudentPolicy(Strict):
    """Which model learns, how, and where it is served."""

    base: str = "SmolLM2-135M-Instruct"
    engine: str = "local"
    recipe: Literal["lora"] = "lora"
    max_prompt_bytes: int = Field(6000, gt=0, description="longer prompts are not eligible for the student")


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
    drift: DriftPolicy | None = None
    tracking: TrackingPolicy | None = None
    on: Cluster | None = Field(None, description="ray://HOST:PORT of a cluster's Jobs API: the heavy phases run there")
