"""The ways to make a student, one file each."""

from retrainer.recipes.full import Full
from retrainer.recipes.job import Job
from retrainer.recipes.lora import Lora
from retrainer.recipes.qlora import QLora
from retrainer.recipes.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {"lora": Lora, "qlora": QLora, "full": Full}

__all__ = ["RECIPES", "Job", "Recipe"]
