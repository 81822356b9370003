"""What an operator says about learning from a teacher beyond its texts: `retrain.distil`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from router.policy_fields import Rate, Strict

Recipe = Literal[
    "logits", "topk", "hidden", "attention", "on_policy", "preference", "cascade", "pruned", "layerwise", "self",
    "ensemble", "adapters", "uncertain", "quantized",
]  # fmt: skip
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class DistilPolicy(Strict):
    """Which local model teaches, and by which settings of the field; `docs/distillation.md` says which recipe reads
    which."""

    teacher: str | None = Field(None, description="a base model's name or folder; it shares the student's tokenizer")
    teachers: tuple[str, ...] = Field((), description="ensemble: at least two, as `teacher`")
    weights: tuple[Annotated[float, Field(gt=0.0)], ...] = Field((), description="ensemble: one a teacher")
    assistants: tuple[str, ...] = Field((), description="cascade: models between teacher and student, largest first")
    temperature: float = Field(4.0, ge=1.0, le=20.0)
    alpha: Rate = Field(0.7, description="the soft targets' share of the loss; the rest is the logged answers'")
    beta: Rate = Field(0.5, description="on-policy: 0 is forward KL, 1 reverse KL")
    on_policy: Rate = Field(0.5, description="on-policy: share of the batches that the student answers itself")
    preference_beta: float = Field(0.1, gt=0.0, description="preference: how near to where it started")
    keep_layers: Share = Field(0.5, description="pruned, layerwise: share of the teacher's layers")
    keep_ffn: Share = Field(1.0, description="pruned: share of the neurons of each feed-forward block")
    keep_hidden: Share = Field(1.0, description="pruned: share of the hidden channels")
    layers: Literal["importance", "spread"] = Field("importance", description="or evenly spread, as DistilBERT's")
    rounds: int = Field(3, gt=0, le=20, description="layerwise: in how many rounds the layers go")
    combine: Literal["linear", "ties", "dare_ties"] = Field("ties", description="adapters: how task vectors become one")

    @model_validator(mode="after")
    def _paired(self) -> "DistilPolicy":
        if self.weights and len(self.weights) != len(self.teachers):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.teachers)} teachers; give one each, or none")
        return self
