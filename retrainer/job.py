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
from retrainer.serving import Serving
from router import split_thinking
from router.policy import RoutePolicy
from router.policy_student import StudentPolicy
from router.thinking import written

MOST_WATCHED = 64  # examples whose loss says when a training is over


class Job:
    """`state`: the state folder. `folder`: where a recipe leaves its files. `dataset`: where the cycle's data set is,
    by default in `folder`. `max_steps`: ends a training early. `serving`: by what the student
    will be served, the ONNX engine by default. Heavy libraries are imported when something of it is
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
        serving: Serving | None = None,
    ) -> None:
        if policy.student is None:
            raise CycleError("the route has no student")
        self.state, self.policy, self.folder, self.progress = state, policy, folder, progress
        self.student: StudentPolicy = policy.student
        self.dataset = dataset or folder / "dataset"
        self.max_steps = max_steps
        self.serving = serving or Serving()

    @cached_property
    def base(self) -> BaseModel:
        """The student's base model; a packaged one is converted at the first cycle. Raises BaseModelError."""
        return find(self.student.base, self.state)

    @property
    def lineage(self) -> dict[str, Any]:
        """What a training is a function of, beside data set, base and packages: the policy's parts, and the local
        teachers' revisions. Raises BaseModelError."""
        distil = self.policy.retrain.distil
        names = {name for name in (distil.teacher, *distil.teachers, *distil.assistants) if name is not None}
        return {
            "policy": self.policy.model_dump(mode="json", include={"student", "retrain"}),
            "teachers": {name: find(name, self.state).revision for name in sorted(names)},
            "max_steps": self.max_steps,
        }

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
        have their say in what the data set holds.) Raises CycleError where nothing is left."""
        return [row for _, row in self._fitting]

    @cached_property
    def learnt(self) -> list[Example]:
        """The example that each of `rows` is."""
        return [example for example, _ in self._fitting]

    def fits(self, row: Row) -> bool:
        """Whether it is short enough to be learnt from."""
        return len(row.prompt) + len(row.completion) <= self.policy.retrain.max_tokens

    @cached_property
    def _fitting(self) -> list[tuple[Example, Row]]:
        if self.calls_tools:
            self._check_tags()
        rows = ((example, self.row(example)) for example in self.data.train)
        fitting = [(example, row) for example, row in rows if self.fits(row)]
        if not fitting:
            raise CycleError(
                f"none of {len(self.data.train)} training examples fits into {self.policy.retrain.max_tokens} tokens; "
                "raise retrain.max_tokens"
            )
        return fitting

    @cached_property
    def choosing(self) -> list[Example]:
        """Those of the validation part (half of its groups) that may choose anything: weights, temperatures, settings.
        No student is judged by them. In the order of a draw that a growing log doesn't change."""
        return sorted((e for e in self.data.validation if chooses(e)), key=lambda e: _hash("choosing", e.id))

    @cached_property
    def watched(self) -> list[Example]:
        """Those whose loss the training watches."""
        return self.choosing[:MOST_WATCHED] if self.policy.retrain.validations else []

    @cached_property
    def watched_rows(self) -> list[Row]:
        """The watched examples in the base model's tokens, but those that are too long."""
        return [row for row in map(self.row, self.watched) if self.fits(row)]

    @cached_property
    def _shows_thinking(self) -> bool:
        tokens = self.tokenizer.encode(written("a", "b"), add_special_tokens=False)
        return split_thinking(self.tokenizer.decode(tokens, skip_special_tokens=True)) == ("a", "b")

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
            if example.reasoning and not self._shows_thinking:
                raise BaseModelError(
                    f"{self.student.base}: its tokenizer hides <think> as a special token, so that thinking and answer "
                    "could not be told apart; take another base, or retrain.data.reasoning: drop"
                )
            return render(
                self.tokenizer,
                example.messages,
                example.answer,
                reasoning=example.reasoning,
                weight=example.weight,
                settled=example.corrected,
            )
        except (TemplateError, ValueError) as error:
            raise BaseModelError(
                f"{self.student.base}: its chat template can't render the messages: {error}"
            ) from error


def chooses(example: Example) -> bool:
    """Whether an example of the validation part may choose, and so can't judge: a coin toss by its group."""
    return _hash("choosing", example.group or example.id)[0] < 128


def _hash(what: str, name: str) -> bytes:
    return hashlib.sha256(f"{what}:{name}".encode()).digest()
