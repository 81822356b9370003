"""What a recipe works on: one cycle's data, base model and folder."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from retrainer.base_models import BaseModel, find
from retrainer.data.closed import Closed, detect
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, load
from retrainer.data.render import Row, render
from retrainer.errors import BaseModelError, CycleError
from retrainer.progress import Progress
from router import split_thinking
from router.policy import RoutePolicy
from router.policy_student import StudentPolicy
from router.thinking import written

MOST_WATCHED = 64  # held-out examples whose loss says when a training is over


class Job:
    """`state`: the state folder. `folder`: where a recipe leaves its files. `dataset`: where the cycle's data set is,
    by default in `folder`. `max_steps`: ends a training early. Heavy libraries are imported when something of it is
    asked for."""

    def __init__(
        self,
        state: str,
        policy: RoutePolicy,
        folder: Path,
        progress: Progress,
        *,
        dataset: Path | None = None,
        max_steps: int | None = None,
    ) -> None:
        if policy.student is None:
            raise CycleError("the route has no student")
        self.state, self.policy, self.folder, self.progress = state, policy, folder, progress
        self.student: StudentPolicy = policy.student
        self.dataset = dataset or folder / "dataset"
        self.max_steps = max_steps

    @cached_property
    def base(self) -> BaseModel:
        """The student's base model; a packaged one is converted at the first cycle. Raises BaseModelError."""
        return find(self.student.base, self.state)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's."""
        from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

        return AutoTokenizer.from_pretrained(self.base.folder)

    @cached_property
    def data(self) -> Dataset:
        """What the cycle's data set holds, once it is written. Raises CycleError."""
        return load(self.dataset)

    @cached_property
    def closed(self) -> Closed:
        """Whether the training part's answers are few."""
        return detect([e.answer for e in self.data.train])

    @cached_property
    def rows(self) -> list[Row]:
        """The training part in the base model's tokens, but for what is too long. (On a ladder, rungs that read more
        have their say in what the data set holds.)"""
        rows = [self.row(e) for e in self.data.train]
        return [row for row in rows if len(row.prompt) + len(row.completion) <= self.policy.retrain.max_tokens]

    @cached_property
    def watched(self) -> list[Example]:
        """Those of the validation part (a quarter at the most) whose loss the training watches; since they have a say
        in which weights are kept, the student is judged without them."""
        if not self.policy.retrain.validations:
            return []
        drawn = sorted(self.data.validation, key=lambda e: hashlib.sha256(f"watch:{e.id}".encode()).digest())
        return drawn[: min(MOST_WATCHED, len(drawn) // 4)]

    @cached_property
    def watched_rows(self) -> list[Row]:
        """The watched examples in the base model's tokens."""
        return [self.row(e) for e in self.watched]

    @cached_property
    def _shows_thinking(self) -> bool:
        tokens = self.tokenizer.encode(written("a", "b"), add_special_tokens=False)
        return split_thinking(self.tokenizer.decode(tokens, skip_special_tokens=True)) == ("a", "b")

    def row(self, example: Example) -> Row:
        """An example in the base model's tokens. Raises BaseModelError where its chat template refuses the messages."""
        from jinja2.exceptions import TemplateError  # noqa: PLC0415 - with transformers, heavy

        try:
            if example.reasoning and not self._shows_thinking:
                raise BaseModelError(
                    f"{self.student.base}: its tokenizer hides <think> as a special token, so that thinking and answer "
                    "could not be told apart; take another base, or retrain.data.reasoning: drop"
                )
            return render(
                self.tokenizer, example.messages, example.answer, reasoning=example.reasoning, weight=example.weight
            )
        except (TemplateError, ValueError) as error:
            raise BaseModelError(
                f"{self.student.base}: its chat template can't render the messages: {error}"
            ) from error
