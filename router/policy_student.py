"""What an operator says about a route's student, and about how it learns."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from router.policy_closed import ClosedPolicy
from router.policy_cycle import Cluster, DriftPolicy, TrackingPolicy
from router.policy_data import DataPolicy
from router.policy_distil import DistilPolicy, Recipe
from router.policy_fields import Rate, Seconds, Strict
from router.policy_gate import GatePolicy

CLOSED = ("linear", "encoder")  # recipes whose student chooses among few answers, from cheap to dear


class LadderPolicy(Strict):
    """A rung of a ladder: a base, and how it learns. A base's name alone learns by LoRA."""

    base: str
    recipe: Literal["lora", "qlora", "full"] = "lora"


LadderRung = Annotated[
    LadderPolicy, BeforeValidator(lambda given: {"base": given} if isinstance(given, str) else given)
]


class StudentPolicy(Strict):
    """Which model learns, how, and where it is served."""

    base: str = "SmolLM2-135M-Instruct"
    engine: str = "local"
    recipe: Literal["lora", "qlora", "full", "linear", "encoder", "auto"] | Recipe = "lora"
    ladder: tuple[LadderRung, ...] = Field(
        (), description="of recipe auto: larger bases, tried after the base, cheap to dear"
    )
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


Quantization = Literal["none", "int8", "int4", "awq", "gptq"]
AskedQuantization = Quantization | Literal["w4a16"]  # AWQ or GPTQ: whichever loses less

# What each runtime of an engine serves, its default first. vLLM has no kernels for the ONNX builder's own int8 and
# int4; dense weights are too slow and too large for the CPUs that the ONNX engine is for.
SERVED_AS: dict[str, tuple[AskedQuantization, ...]] = {
    "onnxruntime": ("int8", "int4", "awq", "gptq", "w4a16"),
    "vllm": ("none", "awq", "gptq", "w4a16"),
}
# The mean KL that an export is allowed at most and the share of likeliest tokens that it must keep: some ten times, and
# for 4 bits twice, what SmolLM2 loses on 512 tokens of answers that it has not learnt (int8: 0.005 nats and 97%; int4:
# 0.17 and 84%; rounded to nearest, as nothing is here: 0.34 and 77%). A student that has learnt its task loses less
# (rounded to nearest 0.03 and 98%); an encoder's int8 loses 0.004 and keeps 97%, of 41, 7 and 18 values.
_EIGHT_BITS, _FOUR_BITS = (0.05, 0.9), (0.35, 0.7)
BOUNDS: dict[Quantization, tuple[float, float]] = {
    "none": _EIGHT_BITS,
    "int8": _EIGHT_BITS,
    "int4": _FOUR_BITS,
    "awq": _FOUR_BITS,
    "gptq": _FOUR_BITS,
}
ADAPTERS = ("lora", "qlora")  # recipes that leave one adapter on their base
ROUNDED = ("int8", "int4")  # what quantization-aware training can round like
SEVERAL = ("lora", "qlora", "full", "auto")  # recipes whose training several processes can share


class ParityPolicy(Strict):
    """How far an export may be from its source before it is taken for broken, see `exporters.models.parity`; by default
    as BOUNDS has it for how weights are rounded. How much worse a good export answers is the gate's to judge, by the
    task's own score."""

    max_kl: float | None = Field(None, gt=0.0, description="nats a token, of the answers")
    min_top1: Rate | None = Field(
        None, description="share of the answers' tokens at which both find the same likeliest"
    )

    def bounds(self, how: Quantization) -> tuple[float, float]:
        """The greatest mean KL, and the least share, of weights that are rounded so."""
        max_kl, min_top1 = BOUNDS[how]
        return (
            max_kl if self.max_kl is None else self.max_kl,
            min_top1 if self.min_top1 is None else self.min_top1,
        )


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
    quantization: AskedQuantization | None = Field(None, description="int8; for an engine with runtime vllm: none")
    parity: ParityPolicy = ParityPolicy()
    held_out: str | None = Field(None, description="JSON lines of {messages, answer}: candidates are judged on these")
    seed: int = 0
    closed: ClosedPolicy = ClosedPolicy()
    data: DataPolicy = DataPolicy()
    gate: GatePolicy = GatePolicy()
    drift: DriftPolicy | None = None
    tracking: TrackingPolicy | None = None
    distil: DistilPolicy = DistilPolicy()
    on: Cluster | None = Field(None, description="ray://HOST:PORT of a cluster's Jobs API: the heavy phases run there")

    def quantized_for(self, runtime: str) -> AskedQuantization:
        """How weights are rounded for an engine of this runtime."""
        return self.quantization or SERVED_AS[runtime][0]

    def unserved(self, student: StudentPolicy, runtime: str, *, adapters: bool = False) -> str | None:
        """Why an engine of this runtime can't serve what these policies make; None where it can. `adapters`: it serves
        adapters alone."""
        if runtime == "vllm" and student.may_choose:
            return (
                f"student.recipe: {student.recipe} makes students that choose, which only runtime: onnxruntime serves"
            )
        asked, served = self.quantized_for(runtime), SERVED_AS[runtime]
        if adapters and student.recipe not in ADAPTERS:
            return f"student.recipe: {student.recipe} leaves no adapter, all that an engine with adapters_on serves"
        if adapters and asked != "none":
            return f"retrain.quantization: an adapter is served as it is, on adapters_on; leave {asked} out"
        if asked not in served:
            return f"retrain.quantization: {asked} is not served by runtime: {runtime}; take {', '.join(served)}"
        if student.recipe == "quantized" and asked not in ROUNDED:
            return (
                f"student.recipe: quantized learns with its weights rounded as {' or '.join(ROUNDED)} rounds them, and "
                f"{asked} chooses its rounding after training; take one of the two, or another recipe"
            )
        return None

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
            wrong += [
                f"retrain.{name}: the recipe {recipe} doesn't look at it; retrain.closed says how it trains"
                for name in ("batch_size", "validations", "patience")
                if getattr(self, name) != type(self).model_fields[name].default
            ]
        return wrong
