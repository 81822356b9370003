"""What an operator says about a route's student, and about how it learns."""

from typing import Any, Literal

from pydantic import Field, model_validator

from router.policy_closed import ClosedPolicy
from router.policy_cycle import Cluster, DriftPolicy, TrackingPolicy
from router.policy_data import DataPolicy
from router.policy_distil import DistilPolicy, Recipe
from router.policy_fields import Seconds, Strict
from router.policy_gate import GatePolicy

CLOSED = ("linear", "encoder")  # recipes whose student chooses among few answers, from cheap to dear


class StudentPolicy(Strict):
    """Which model learns, how, and where it is served."""

    base: str = "SmolLM2-135M-Instruct"
    engine: str = "local"
    recipe: Literal["lora", "qlora", "full", "linear", "encoder", "auto"] | Recipe = "lora"
    ladder: tuple[str, ...] = Field((), description="of recipe auto: larger bases, tried after the base, cheap to dear")
    max_prompt_bytes: int = Field(6000, gt=0, description="longer prompts are not eligible for the student")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """`student: auto`, or the name of another recipe: the rest is as by default."""
        return {"recipe": data} if isinstance(data, str) else data

    @property
    def writes(self) -> bool:
        """Whether a student may be one that writes its answers, and so can call tools."""
        return self.recipe not in CLOSED

    @property
    def may_choose(self) -> bool:
        """Whether a student may be one that chooses among few answers, and so can't tell tokens."""
        return self.recipe in (*CLOSED, "auto")


SEVERAL = ("lora", "qlora", "full", "auto")  # recipes whose training several processes can share


class RetrainPolicy(Strict):
    """When a training cycle starts, and how long it may learn. `every: 0s` turns the schedule off. What is None is
    chosen by the recipe, see `retrainer.train.presets`."""

    min_new_examples: int = Field(500, gt=0)
    every: Seconds = 86400.0
    max_examples: int = Field(20000, gt=0)
    epochs: float = Field(1.0, gt=0)
    learning_rate: float | None = Field(None, gt=0)
    batch_size: int = Field(16, gt=0, description="examples whose gradients make a step, however they fit into memory")
    lora_rank: int = Field(16, gt=0)
    lora_alpha: int | None = Field(None, gt=0)
    lora_targets: Literal["all-linear"] | tuple[str, ...] = Field("all-linear", min_length=1)
    packing: bool = Field(False, description="several examples in one row of max_tokens, each seeing itself alone")
    gradient_checkpointing: bool = Field(False, description="activations are computed twice instead of kept")
    validations: int = Field(8, ge=0, description="looks at the validation loss during a training; 0: none")
    patience: int = Field(3, gt=0, description="looks without a lower validation loss, after which training ends")
    checkpoint_steps: int = Field(500, gt=0)
    checkpoint_every: Seconds = 30.0
    max_tokens: int = Field(1024, gt=8, description="longer examples are left out")
    launch: str | None = Field(None, description="a configuration of `accelerate launch`: several processes train")
    quantization: Literal["int8", "int4"] = "int8"
    held_out: str | None = Field(None, description="JSON lines of {messages, answer}: candidates are judged on these")
    seed: int = 0
    closed: ClosedPolicy = ClosedPolicy()
    data: DataPolicy = DataPolicy()
    gate: GatePolicy = GatePolicy()
    drift: DriftPolicy | None = None
    tracking: TrackingPolicy | None = None
    distil: DistilPolicy = DistilPolicy()
    on: Cluster | None = Field(None, description="ray://HOST:PORT of a cluster's Jobs API: the heavy phases run there")

    def unheard(self, recipe: str) -> list[str]:
        """What is asked for that a recipe can't do, in words."""
        wrong = []
        if self.launch is not None and recipe not in SEVERAL:
            wrong.append(
                f"retrain.launch: the recipe {recipe} trains in one process; leave it out, or take one of the recipes "
                f"{', '.join(SEVERAL)}"
            )
        if recipe in CLOSED:
            wrong += [
                f"retrain.{name}: the recipe {recipe} doesn't train a language model; leave it out"
                for name in ("packing", "gradient_checkpointing")
                if getattr(self, name)
            ]
        return wrong
