"""The ways to make a student, one file each."""

from retrainer.recipes.adapters import Adapters
from retrainer.recipes.attention import Attention
from retrainer.recipes.cascade import Cascade
from retrainer.recipes.encoder import Encoder
from retrainer.recipes.ensemble import Ensemble
from retrainer.recipes.full import Full
from retrainer.recipes.hidden import Hidden
from retrainer.recipes.job import Job
from retrainer.recipes.layerwise import Layerwise
from retrainer.recipes.linear import Linear
from retrainer.recipes.logits import Logits
from retrainer.recipes.lora import Lora
from retrainer.recipes.on_policy import OnPolicy
from retrainer.recipes.preference import Preference
from retrainer.recipes.pruned import Pruned
from retrainer.recipes.qlora import QLora
from retrainer.recipes.quantized import Quantized
from retrainer.recipes.recipe import Recipe
from retrainer.recipes.self_distilled import SelfDistilled
from retrainer.recipes.topk import TopK
from retrainer.recipes.uncertain import Uncertain

RECIPES: dict[str, type[Recipe]] = {
    "lora": Lora,
    "qlora": QLora,
    "full": Full,
    "linear": Linear,
    "encoder": Encoder,
    "logits": Logits,
    "topk": TopK,
    "hidden": Hidden,
    "attention": Attention,
    "on_policy": OnPolicy,
    "preference": Preference,
    "cascade": Cascade,
    "pruned": Pruned,
    "layerwise": Layerwise,
    "self": SelfDistilled,
    "ensemble": Ensemble,
    "adapters": Adapters,
    "uncertain": Uncertain,
    "quantized": Quantized,
}

__all__ = ["RECIPES", "Job", "Recipe"]
