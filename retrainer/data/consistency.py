"""Does the teacher say the same again? A share of the prompts is answered a second time, through the gateway; what it
contradicts itself on teaches nothing certain.

What was asked once isn't asked again, neither by a build that was killed nor by the route's next cycle: the agreements
are kept by a digest of prompt, answer and score, without any text.
"""

import asyncio
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import msgspec

from collector.errors import JudgeFailed
from retrainer.data.curate import Example
from retrainer.progress import Meter, Progress, silent
from retrainer.scoring import Scorer
from router.policy_data import ConsistencyPolicy

Again = Callable[[Example], Awaitable[str]]  # the teacher's second answer; raises JudgeFailed
MOST_FAILURES = 20  # in a row, after which the gateway is left alone
LEAST_WEIGHT = 0.1


class Second(msgspec.Struct, frozen=True):
    """How second answers are had and compared. `teachers`: whose they are, by their names. `kept`: the file of what is
    known. `named`: says what an agreement depends on besides the texts (the score, the route that is asked)."""

    asking: Callable[[], AbstractAsyncContextManager[Again]]
    score: Scorer
    teachers: Collection[str]
    kept: Path
    named: str
    progress: Progress = silent

    def asks(self, example: Example) -> bool:
        """Whether it can be asked the same: tools aren't offered again, and another's answer is not its own."""
        return not example.asked.tools and example.teacher in ("", *self.teachers)


def agreements(
    second: Second, policy: ConsistencyPolicy, examples: Sequence[Example]
) -> tuple[list[float | None], dict[str, Any]]:
    """How well the two answers to each example agree, in [0, 1]; None where none came, or nothing can be compared. With
    a summary: how many were asked, their mean agreement, what failed."""
    second.kept.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(second.kept, isolation_level=None)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS agreements (key BLOB PRIMARY KEY, value REAL) WITHOUT ROWID")
        failed = asyncio.run(_ask_all(db, second, policy.concurrency, examples))
        found = [_known(db, second, example) if second.asks(example) else None for example in examples]
    values = [row[0] for row in found if row is not None and row[0] is not None]
    summary = {
        "asked": sum(map(second.asks, examples)),
        "compared": len(values),
        "agreement": round(sum(values) / len(values), 6) if values else None,
        "contradicted": sum(value < policy.agree_from for value in values),
        "failed": dict(sorted(failed.items())),
    }
    return [None if row is None else row[0] for row in found], summary


async def _ask_all(
    db: sqlite3.Connection, second: Second, concurrency: int, examples: Sequence[Example]
) -> Counter[str]:
    failed: Counter[str] = Counter()
    in_a_row = 0
    meter = Meter(second.progress, "consistency", len(examples))
    waiting: Iterator[Example] = (e for e in _told(examples, meter) if second.asks(e) and _known(db, second, e) is None)

    async def work(ask: Again) -> None:
        nonlocal in_a_row
        for example in waiting:  # shared: each example goes to one of the workers
            if in_a_row >= MOST_FAILURES:
                failed["given_up"] += 1
                continue
            try:
                text = await ask(example)
            except JudgeFailed as error:
                failed[error.reason] += 1
                in_a_row += 1
                continue
            in_a_row = 0
            row = (_key(second, example), _compared(second.score, example, text))
            db.execute("INSERT OR REPLACE INTO agreements VALUES (?, ?)", row)

    async with second.asking() as ask:
        await asyncio.gather(*(work(ask) for _ in range(concurrency)))
    return failed


def _told(examples: Sequence[Example], meter: Meter) -> Iterator[Example]:
    for number, example in enumerate(examples):
        meter(number)
        yield example


def _compared(score: Scorer, example: Example, text: str) -> float | None:
    try:
        return score(
            answer={"role": "assistant", "content": text},
            reference={"role": "assistant", "content": example.answer},
            finish_reason="stop",
            asked=example.asked,
        ).value
    except ValueError:
        return None


def _known(db: sqlite3.Connection, second: Second, example: Example) -> tuple[float | None] | None:
    row: tuple[float | None] | None = db.execute(
        "SELECT value FROM agreements WHERE key = ?", (_key(second, example),)
    ).fetchone()
    return row


def _key(second: Second, example: Example) -> bytes:
    said = msgspec.json.encode([second.named, example.messages, example.answer, example.parameters])
    return hashlib.sha256(said).digest()
