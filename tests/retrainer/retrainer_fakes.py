"""A log of a list, and records and examples of the tiny task."""

from collections.abc import Sequence

import msgspec
import tiny_model

from collector.log import Entry, Record, Stream
from collector.log_sqlite import SqliteLog
from collector.record import Answer, Interaction, encode
from retrainer.data.curate import Example
from router.decision import Arm


class CountedLog(SqliteLog):
    """A log that goes with the test, and counts how often it is read."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.reads = 0

    def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> list[Entry]:
        self.reads += 1
        return super().read(stream, offset, limit, key=key)


def interaction(number: int, **changes: object) -> Interaction:
    """The n-th exchange of the tiny task, answered by the teacher; `changes` replace fields."""
    text = tiny_model.question(number)
    made = Interaction(
        id=f"x{number}",
        at=1000.0 + number,
        route="colours",
        kind="chat",
        arm=Arm.TEACHER,
        version=None,
        propensity=1.0,
        eligible=True,
        policy_version="p",
        rollout_revision=0,
        consent="opt-out",
        scrubber="s1",
        cluster=f"c{number}",
        stream=False,
        request={"model": "m", "messages": tiny_model.messages(number)},
        answers=(teacher(tiny_model.answer(text)),),
    )
    return msgspec.structs.replace(made, **changes)


def teacher(text: str, **changes: object) -> Answer:
    made = Answer(
        arm=Arm.TEACHER,
        upstream="up/m",
        status=200,
        finish_reason="stop",
        message={"role": "assistant", "content": text},
    )
    return msgspec.structs.replace(made, **changes)


def fill(log: CountedLog, records: Sequence[Interaction]) -> None:
    log.append([(Stream.INTERACTIONS, Record(id=r.id, key=r.route, at=r.at, value=encode(r))) for r in records])


def example(number: int, *, cluster: str | None = None, text: str | None = None, answer: str | None = None) -> Example:
    """The n-th example of the tiny task."""
    question = tiny_model.question(number) if text is None else text
    return Example(
        id=f"x{number}",
        offset=number,
        at=float(number),
        cluster=cluster or f"c{number}",
        messages=[{"role": "system", "content": tiny_model.SYSTEM}, {"role": "user", "content": question}],
        answer=answer if answer is not None else tiny_model.answer(question),
    )
