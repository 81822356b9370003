"""The ways to make a student, one file each."""

from collections.abc import Callable
from functools import partial

from retrainer.recipes import (
    adapters,
    attention,
    cascade,
    ensemble,
    full,
    hidden,
    layerwise,
    logits,
    lora,
    on_policy,
    preference,
    pruned,
    quantized,
    self_distilled,
    topk,
    uncertain,
)
from retrainer.recipes.causal import Causal
from retrainer.recipes.encoder import Encoder
from retrainer.recipes.job import Job
from retrainer.recipes.linear import Linear
from retrainer.recipes.qlora import QLora
from retrainer.recipes.recipe import Recipe

RECIPES: dict[str, Callable[[Job], Recipe]] = {
    "lora": partial(Causal, fit=lora.fit),
    "qlora": QLora,
    "full": partial(Causal, fit=full.fit),
    "linear": Linear,
    "encoder": Encoder,
    "logits": partial(Causal, fit=logits.fit),
    "topk": partial(Causal, fit=topk.fit),
    "hidden": partial(Causal, fit=hidden.fit),
    "attention": partial(Causal, fit=attention.fit),
    "on_policy": partial(Causal, fit=on_policy.fit),
    "preference": partial(Causal, fit=preference.fit),
    "cascade": partial(Causal, fit=cascade.fit),
    "pruned": partial(Causal, fit=pruned.fit),
    "layerwise": partial(Causal, fit=layerwise.fit),
    "self": partial(Causal, fit=self_distilled.fit),
    "ensemble": partial(Causal, fit=ensemble.fit),
    "adapters": partial(Causal, fit=adapters.fit),
    "uncertain": partial(Causal, fit=uncertain.fit),
    "quantized": partial(Causal, fit=quantized.fit),
}

__all__ = ["RECIPES", "Job", "Recipe"]
