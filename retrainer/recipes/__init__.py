"""The ways to make a student, one file each."""

from retrainer.recipes.job import Job
from retrainer.recipes.lora import Lora
from retrainer.recipes.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {"lora": Lora}

__all__ = ["RECIPES", "Job", "Recipe"]
