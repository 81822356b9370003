"""What the recipes share whose student chooses among few answers. See docs/students.md."""

import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from exporters.models import CLOSED, Generated, Messages, staged
from exporters.models.closed_form import Form
from exporters.models.frame import Frame
from exporters.models.genai import Tick
from retrainer.data.closed import Choices
from retrainer.data.curate import Example
from retrainer.errors import CycleError
from retrainer.evaluation.generator import Generator
from retrainer.job import Job
from retrainer.recipes.recipe import Exported
from retrainer.recipes.served import SERVED

Fit = Callable[["Task", Path], dict[str, Any]]
LEAST_CHECKED = 20  # records that may choose


class Known(NamedTuple):
    """An example whose answer the form can express, by the numbers of its values."""

    text: str
    numbers: tuple[int, ...]
    weight: float


class Task:
    """A job's examples as texts with the numbers of their answers' values; those that the form can't express are left
    out. `learnt`: the training part; `checked`: those of the validation part that may choose."""

    def __init__(self, job: Job) -> None:
        closed = job.closed
        if closed.form is None:
            raise CycleError(f"the route's answers are not few: {closed.reason}; use recipe: lora, or auto")
        self.job, self.form = job, closed.form
        prompts = [e.messages for e in job.data.train]
        self.shared = shared_beginning(prompts)
        self.frame = Frame.of([prompt[-1]["content"] for prompt in prompts])
        choices = Choices(self.form)
        self.learnt = self._known(job.data.train, choices)
        self.checked = self._known(job.choosing, choices)

    def _known(self, examples: Sequence[Example], choices: Choices) -> list[Known]:
        from exporters.models.closed import text_of  # noqa: PLC0415 - numpy: only a cycle pays for it

        chosen = ((e, choices.of(e.answer)) for e in examples)
        return [
            Known(text_of(e.messages, self.shared, self.frame), numbers, e.weight)
            for e, numbers in chosen
            if numbers is not None
        ]


class ClosedRecipe:
    """See Recipe. `fit`, the recipe's own part: trains, and leaves at the path given what will be exported."""

    runtime = CLOSED

    def __init__(self, job: Job, fit: Fit, *, base: str) -> None:
        self._job, self._fit, self.base = job, fit, base
        self._model = job.folder / "train" / "model"

    @cached_property
    def task(self) -> Task:
        """Raises CycleError where the answers aren't few."""
        return Task(self._job)

    def prepare(self) -> str:
        """See Recipe."""
        return self.base

    def fits(self, example: Example) -> bool:
        """See Recipe. Of a long text only the end is read."""
        return True

    def train(self) -> dict[str, Any]:
        """See Recipe."""
        with staged(self._model) as staging:
            told = self._fit(self.task, staging)
        return {"learnt": len(self.task.learnt), **told}

    def baseline(self) -> Generator:
        """See Recipe. The most frequent answer, whatever is asked."""
        return Frequent([e.answer for e in self._job.data.train])

    def trained(self) -> Generator:
        """See Recipe."""
        return self.exported(self._model)

    def export(self, artefact: Path) -> dict[str, Any]:
        """See Recipe."""
        shutil.copytree(self._model, artefact, dirs_exist_ok=True)
        return {"quantization": "float16"}

    def exported(self, artefact: Path) -> Exported:
        """See Recipe."""
        return SERVED[self.runtime](artefact)

    def most_tokens(self, answers: list[str]) -> int:
        """See Recipe. An answer is one choice."""
        return 1


class Frequent:
    """Generator of the most frequent of some answers."""

    def __init__(self, answers: Sequence[str]) -> None:
        (text, count), *_ = Counter(answers).most_common(1)
        logprob = math.log(count / len(answers))
        self._answer = Generated(text=text, finish_reason="stop", tokens=1, logprobs=(logprob,))

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """See Generator."""
        if tick:
            tick(len(prompts))
        return [self._answer] * len(prompts)


def shared_beginning(prompts: Sequence[Messages]) -> int:
    """How many messages all prompts begin with alike (a system prompt, examples): they say nothing of one prompt. The
    last message of a prompt is never one of them."""
    shared = min(map(len, prompts)) - 1
    first = prompts[0]
    for prompt in prompts:
        shared = next((n for n in range(shared) if prompt[n] != first[n]), shared)
    return shared


def fields_of(form: Form) -> list[slice]:
    """Where each field's values are among the logits of all."""
    edges = [sum(form.sizes[:n]) for n in range(len(form.sizes) + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def temperature(logits: Any, chosen: Any) -> tuple[float, float]:
    """The T at which softmax(logits / T) fits what was chosen best, and its mean log loss (Guo et al. 2017); T is 1
    where there is too little to say. `logits` [n, values]; `chosen` [n]. It can't change which value is likeliest."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - heavy: only a cycle pays for it

    if len(chosen) < LEAST_CHECKED or logits.shape[1] < 2:
        return 1.0, 0.0

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(chosen)), chosen]).mean())

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return math.exp(float(found.x)), float(found.fun)


def temperatures(task: Task, logits: Any) -> list[tuple[float, float]]:
    """T and log loss of each field. `logits` [n, all values]: of `task.checked`."""
    import numpy as np  # noqa: PLC0415 - only a cycle pays for it

    chosen = np.array([one.numbers for one in task.checked], dtype=np.int64).reshape(-1, len(task.form.fields))
    return [temperature(logits[:, at].astype(np.float64), chosen[:, n]) for n, at in enumerate(fields_of(task.form))]


def settings_of(job: Job, *names: str) -> dict[str, Any]:
    """What the manifest keeps of `retrain.closed`."""
    return {**job.policy.retrain.closed.model_dump(include=set(names)), "seed": job.policy.retrain.seed}
