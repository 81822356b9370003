"""The ways to make a student, one file each."""

from retrainer.recipes.encoder import Encoder
from retrainer.recipes.job import Job
from retrainer.recipes.linear import Linear
from retrainer.recipes.lora import Lora
from retrainer.recipes.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {"encoder": Encoder, "linear": Linear, "lora": Lora}

__all__ = ["RECIPES", "Job", "Recipe"]
