"""Of all examples that the log gives, those that the data set holds: what is left out is marked with its reason."""

import sqlite3
from typing import Any

import msgspec

from retrainer.data.balance import balance
from retrainer.data.consistency import LEAST_WEIGHT, Second, agreements
from retrainer.data.curate import Example
from router.policy_data import ConsistencyPolicy, DataPolicy

_FIRST = (
    "UPDATE examples SET dropped = CASE WHEN torn THEN 'torn' WHEN kept_out != '' AND side = 'train' THEN kept_out END"
)
_ALIKE = """
UPDATE examples SET dropped = 'near_duplicate' WHERE seq IN (SELECT seq FROM (
    SELECT seq, row_number() OVER (PARTITION BY alike ORDER BY corrected DESC, log_offset DESC) AS n
    FROM examples WHERE dropped IS NULL AND side = 'train') WHERE n > ?)
"""
_NEWEST = """
CREATE TEMP TABLE newest AS SELECT seq FROM examples WHERE dropped IS NULL
    ORDER BY corrected DESC, log_offset DESC LIMIT ?
"""
_REPLAYED = """
CREATE TEMP TABLE replayed AS SELECT seq FROM examples
    WHERE dropped IS NULL AND seq NOT IN (SELECT seq FROM newest) ORDER BY draw LIMIT ?
"""
_OLD = """
UPDATE examples SET dropped = 'too_old' WHERE dropped IS NULL AND seq NOT IN (SELECT seq FROM newest)
    AND seq NOT IN (SELECT seq FROM replayed)
"""
# By its own chance alone a correction would count for little among those that stand for what the student has served.
_PRIORITY = """
UPDATE examples SET weight = (
    SELECT coalesce(max(avg(weight), 1.0), 1.0) FROM examples WHERE dropped IS NULL AND side = 'train' AND NOT corrected
) WHERE dropped IS NULL AND side = 'train' AND corrected
"""


class Selected(msgspec.Struct, frozen=True):
    """`replayed`: examples from before the newest. `consistency`: what asking the teacher again gave."""

    replayed: int
    consistency: dict[str, Any] | None


def select(db: sqlite3.Connection, policy: DataPolicy, *, max_examples: int, second: Second | None) -> Selected:
    """Mark what the data set leaves out. What is measured with stays as production has it, but for what may stand on no
    side (`torn`) and what is too old."""
    db.execute(_FIRST)
    summary = None
    if policy.consistency is not None and second is not None:
        summary = _consistent(db, policy.consistency, second)
    if policy.most_alike is not None:
        db.execute(_ALIKE, (policy.most_alike,))
    if policy.balance is not None:
        balance(db, policy.balance)
    replayed = _newest(db, max_examples, policy.replay)
    db.execute(_PRIORITY)
    return Selected(replayed, summary)


def _consistent(db: sqlite3.Connection, policy: ConsistencyPolicy, second: Second) -> dict[str, Any]:
    """Always the same prompts are asked about, as long as they are in the log: each cycle pays for the new ones alone.
    What somebody corrected is right, whatever the teacher says."""
    rows = db.execute(
        "SELECT seq, body FROM examples "
        "WHERE dropped IS NULL AND side = 'train' AND NOT corrected AND draw < ? ORDER BY draw LIMIT ?",
        (_below(policy.share), policy.most),
    ).fetchall()
    examples = [msgspec.json.decode(body, type=Example) for _, body in rows]
    found, summary = agreements(second, policy, examples)
    for (seq, _), value in zip(rows, found, strict=True):
        if value is None or value >= policy.agree_from:
            continue
        if policy.then == "drop":
            db.execute("UPDATE examples SET dropped = 'inconsistent' WHERE seq = ?", (seq,))
        else:
            least = max(value, LEAST_WEIGHT)
            db.execute("UPDATE examples SET weight = weight * ? WHERE seq = ?", (least, seq))
    return summary


def _below(share: float) -> bytes:
    """A digest below this one has the probability `share`."""
    return int(share * (2**64 - 1)).to_bytes(8) if share < 1.0 else b"\xff" * 33


def _newest(db: sqlite3.Connection, most: int, replay: float) -> int:
    """What was corrected, the examples with the newest answers (a prompt that came again is as new as its last answer),
    and of the older ones a share that is drawn evenly, always the same ones first."""
    replayed = int(most * replay)
    if db.execute("SELECT count(*) FROM examples WHERE dropped IS NULL").fetchone()[0] <= most:
        return 0
    db.execute(_NEWEST, (most - replayed,))
    db.execute(_REPLAYED, (replayed,))
    db.execute(_OLD)
    db.execute("DROP TABLE newest")
    db.execute("DROP TABLE replayed")
    return replayed
