"""The ways to make a student, one file each, which is imported when it is used: most bring torch along."""

from collections.abc import Callable
from importlib import import_module

from retrainer.job import Job
from retrainer.recipes.causal import Causal
from retrainer.recipes.encoder import Encoder
from retrainer.recipes.linear import Linear
from retrainer.recipes.qlora import QLora
from retrainer.recipes.recipe import Recipe
from retrainer.recipes.served import SERVED

CAUSAL = (
    "lora", "full", "logits", "topk", "hidden", "attention", "on_policy", "preference", "cascade", "pruned",
    "layerwise", "ensemble", "adapters", "uncertain", "quantized",
)  # fmt: skip


def _causal(file: str) -> Callable[[Job], Recipe]:
    return lambda job: Causal(job, import_module(f"retrainer.recipes.{file}").fit)


RECIPES: dict[str, Callable[[Job], Recipe]] = {
    **{name: _causal(name) for name in CAUSAL},
    "self": _causal("self_distilled"),  # self.py would read oddly
    "qlora": QLora,
    "linear": Linear,
    "encoder": Encoder,
}

__all__ = ["RECIPES", "SERVED", "Job", "Recipe"]
