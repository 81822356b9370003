"""Jobs of the distillation recipes: the tiny task, a tiny teacher that knows it, no cycle around."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from retrainer_fakes import example

from collector.record import TokenLogprob
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest
from retrainer.progress import Progress, silent
from retrainer.recipes import RECIPES, Job, Recipe
from router.policy import RoutePolicy

RATE = 5e-3  # of a tiny model's adapters, and of all its weights
FULL = {"epochs": 2}


def job(
    folder: Path,
    base: Path,
    recipe: str,
    *,
    examples: Sequence[Example] | None = None,
    validation: Sequence[Example] = (),
    progress: Progress = silent,
    retrain: dict[str, Any] | None = None,
    score: str = "exact",
    **distil: Any,
) -> Job:
    """A job with 192 training examples, or those given."""
    policy = RoutePolicy.model_validate(
        {
            "teachers": ["up/m"],
            "student": {"base": str(base), "recipe": recipe},
            "retrain": {"learning_rate": RATE, "distil": distil, **(retrain or {})},
            "quality": {"score": score},
        }
    )
    made = Job(str(folder / "state"), policy, folder, progress)
    manifest = DatasetManifest(
        route="r", digest="", first=0, end=0, read=0, counts={}, groups=0, dropped={}, upstreams={}, scrubbers={}
    )
    train = list(examples or [example(n) for n in range(192)])
    made.data = Dataset(train=train, validation=list(validation), test=[], manifest=manifest)
    return made


def trained(made: Job) -> tuple[Recipe, dict[str, Any]]:
    """The job's recipe, run, and what it tells the manifest."""
    recipe = RECIPES[made.student.recipe](made)
    assert recipe.prepare() == made.base.revision
    return recipe, recipe.train()


def with_logprobs(one: Example, tokenizer: Any, *, odds: float) -> Example:
    """The answer's tokens as an API tells them, each with `odds` of "x" as its alternative."""
    ids = tokenizer.encode(one.answer, add_special_tokens=False)
    texts = [tokenizer.decode([i]) for i in ids]
    top = [{text: math.log(1 - odds), "x": math.log(odds)} for text in texts]
    tokens = tuple(TokenLogprob(text, math.log(1 - odds), t) for text, t in zip(texts, top, strict=True))
    return msgspec.structs.replace(one, logprobs=tokens)
