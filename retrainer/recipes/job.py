"""What a recipe works on: one cycle's data, base model and folder."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from exporters.models.tool_text import OPEN
from retrainer.base_models import BaseModel, find
from retrainer.data.closed import Closed, detect
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, load
from retrainer.data.render import Row, render
from retrainer.errors import BaseModelError, CycleError
from retrainer.progress import Progress
from router.policy import RoutePolicy
from router.policy_student import StudentPolicy

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
        """Whether the training part's answers are few. Who is offered tools must be able to write."""
        answers = [e.answer for e in self.data.train]
        with_tools = sum(bool(e.asked.tools) for e in self.data.train)
        if not with_tools:
            return detect(answers)
        why = f"{with_tools} of {len(answers)} requests offer tools, which only a student that writes can call"
        return Closed(form=None, reason=why, answers=len(answers), covered=0, verbatim=0, counts=[])

    @property
    def calls_tools(self) -> bool:
        """Whether the training part shows how tools are called, or that they are not."""
        return any(e.asked.tools for e in self.data.train)

    @cached_property
    def rows(self) -> list[Row]:
        """The training part in the base model's tokens, but for what is too long. (On a ladder, rungs that read more
        have their say in what the data set holds.)"""
        if self.calls_tools:
            self._check_tags()
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

    def _check_tags(self) -> None:
        shown = self.tokenizer.decode(self.tokenizer.encode(OPEN, add_special_tokens=False), skip_special_tokens=True)
        if shown.strip() != OPEN:
            raise BaseModelError(
                f"{self.student.base}: its tokenizer takes {OPEN} for a special token, which no engine shows, so that "
                "its calls could not be read; choose another base, or a quality.score without tool_calls"
            )

    def row(self, example: Example) -> Row:
        """An example in the base model's tokens. Raises BaseModelError where its chat template refuses the messages."""
        from jinja2.exceptions import TemplateError  # noqa: PLC0415 - with transformers, heavy

        try:
            return render(self.tokenizer, example.messages, example.answer, weight=example.weight)
        except (TemplateError, ValueError) as error:
            raise BaseModelError(
                f"{self.student.base}: its chat template can't render the messages: {error}"
            ) from error
