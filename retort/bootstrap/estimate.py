"""What labelling will cost, said before anything is asked."""

from collections.abc import Sequence

import msgspec

from collector import open_interactions
from retort.bootstrap.labelling import Told
from retort.bootstrap.prompts import Task
from retort.bootstrap.scenarios import SAID_TOKENS
from retort.imports.exchange import Target
from router import Arm, Config

ANSWER_TOKENS = 150.0  # where nothing is known


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """`calls`: of the teacher, those in which it plays the user included. `usd`: None where its price isn't known.
    `answer_tokens`: assumed of an answer, and `source` whence. `not_learnt`: tasks with tools, where the students of
    the route don't learn to call them."""

    teacher: str
    calls: float
    prompt_tokens: float
    completion_tokens: float
    usd: float | None
    answer_tokens: float
    source: str
    not_learnt: int = 0

    def lines(self, told: Told) -> list[str]:
        """For people."""
        before = f" ({told.before} of {told.tasks} are done already)" if told.before else ""
        cost = "its price is not known (upstreams.NAME.prices)" if self.usd is None else f"about {self.usd:,.2f} USD"
        lines = [
            f"{told.tasks - told.before} to ask of {self.teacher}{before}: about {self.calls:,.0f} calls, {cost}",
            f"  {self.prompt_tokens:,.0f} tokens in (4 characters each), {self.completion_tokens:,.0f} out "
            f"({self.answer_tokens:.0f} an answer, {self.source})",
        ]
        if self.not_learnt:
            lines.append(
                f"  {self.not_learnt} of them have tools, which students of {told.route} don't learn to call: their "
                "answers would be paid for and not learnt from (docs/training-data.md, Tools, says what to set)"
            )
        return lines


def estimate(config: Config, target: Target, tasks: Sequence[Task], answer_tokens: float | None) -> Estimate:
    """Calls, tokens and USD. Rounds of tool calls are not counted. Raises LogError."""
    source = "given"
    if answer_tokens is None:
        measured = _measured(config, target.route)
        answer_tokens = ANSWER_TOKENS if measured is None else measured
        source = "assumed" if measured is None else "as in the log"
    sizes = [task.size(answer_tokens) for task in tasks]
    prompt = sum(size.prompt_tokens for size in sizes)
    completion = sum(size.answers * answer_tokens + size.said * SAID_TOKENS for size in sizes)
    return Estimate(
        teacher=target.teacher,
        calls=sum(size.answers + size.said for size in sizes),
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=usd(config, target.teacher, prompt, completion),
        answer_tokens=answer_tokens,
        source=source,
        not_learnt=0 if target.policy.learns_tools else sum(task.offers_tools for task in tasks),
    )


def usd(config: Config, teacher: str, prompt_tokens: float, completion_tokens: float) -> float | None:
    """What a teacher asks for so many tokens; None where its price isn't known."""
    upstream, _, model = teacher.partition("/")
    prices = config.upstreams[upstream].prices.get(model)
    return None if prices is None else (prompt_tokens * prices.input + completion_tokens * prices.output) / 1e6


def _measured(config: Config, route: str) -> float | None:
    """Mean tokens of the teacher's latest answers."""
    with open_interactions(config) as interactions:
        found = [
            answer.usage.completion_tokens
            for record in interactions.latest(route)
            for answer in record.answers
            if answer.arm is Arm.TEACHER and answer.usage is not None
        ]
    return sum(found) / len(found) if found else None
