"""Which prompts belong together, found one after the other and kept on disk: a conversation, and near-duplicates.

A record's side never changes: groups are formed in the log's order, each record joining the earliest one that it
resembles, and a group's side is a hash of its first record's conversation. What may or may not be learnt from is
decided later and has no say in it. (After erasure or retention has removed a group's first record, the next one gives
the key; every cycle trains from the base, so nothing leaks by it.)

Of each band of a sketch only the earliest prompt is kept: all prompts that share a band stand on one side, since one
that would join two sides is kept out of the index.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from retrainer.data.curate import Side

_TABLES = """
CREATE TABLE IF NOT EXISTS prompts (
    seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, cluster TEXT NOT NULL, grp TEXT NOT NULL,
    alike INTEGER NOT NULL, torn INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS bands (hash INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS conversations (cluster TEXT PRIMARY KEY, grp TEXT NOT NULL) WITHOUT ROWID;
"""


class Place(msgspec.Struct, frozen=True):
    """Where a prompt stands. `seq`: its number. `cluster`: the conversation that it came first in. `alike`: the number
    of the first prompt that it is a near-duplicate of, by way of others too, else its own. `torn`: it resembles groups
    on two sides of the split, and belongs to neither. `new`: it was not known before."""

    seq: int
    cluster: str
    group: str
    alike: int
    torn: bool
    new: bool


class Groups:
    """The groups of a work file, which whoever has opened it commits."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_TABLES)
        self._next = db.execute("SELECT coalesce(max(seq) + 1, 0) FROM prompts").fetchone()[0]

    def known(self, key: bytes) -> Place | None:
        """Where a prompt already stands. `key`: its digest."""
        row = self._db.execute("SELECT seq, cluster, grp, alike, torn FROM prompts WHERE key = ?", (key,)).fetchone()
        return None if row is None else Place(row[0], row[1], row[2], row[3], bool(row[4]), False)

    def place(self, key: bytes, cluster: str, bands: Sequence[int], *, near: Iterable[int] = ()) -> Place:
        """Give a prompt that isn't known its group. `bands`: of its sketch; `near`: prompts that mean the same."""
        found = {row for band in bands for row in self._db.execute(_AT_BAND, (band,))}
        found |= {row for seq in near for row in self._db.execute(_AT, (seq,))}
        alike = sorted(found)  # the earliest first
        candidates = [group for _, group, _ in alike]
        talk = self._db.execute("SELECT grp FROM conversations WHERE cluster = ?", (cluster,)).fetchone()
        if talk is not None:
            candidates.insert(0, talk[0])
        seq, self._next = self._next, self._next + 1
        torn = len({side(group) for group in candidates}) > 1
        group = candidates[0] if candidates else _group_of(cluster)
        place = Place(seq, cluster, group, alike[0][2] if alike else seq, torn, True)
        self._db.execute("INSERT INTO prompts VALUES (?, ?, ?, ?, ?, ?)", (seq, key, cluster, group, place.alike, torn))
        if not torn:
            self._db.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, seq) for band in bands])
            if talk is None:
                self._db.execute("INSERT INTO conversations VALUES (?, ?)", (cluster, group))
        return place

    def sides(self, bands: Sequence[int]) -> set[Side]:
        """Where the prompts stand that are near-duplicates of one with these bands."""
        return {side(row[1]) for band in bands for row in self._db.execute(_AT_BAND, (band,))}


_AT_BAND = "SELECT p.seq, p.grp, p.alike FROM bands b JOIN prompts p ON p.seq = b.seq WHERE b.hash = ?"
_AT = "SELECT seq, grp, alike FROM prompts WHERE seq = ? AND NOT torn"


def side(group_key: str) -> Side:
    """80% train, 10% validation, 10% test, by a hash of the group."""
    u = int.from_bytes(hashlib.sha256(f"split:{group_key}".encode()).digest()[:8]) / 2**64
    if u < 0.8:
        return Side.TRAIN
    return Side.VALIDATION if u < 0.9 else Side.TEST


def _group_of(cluster: str) -> str:
    return hashlib.sha256(f"group:{cluster}".encode()).hexdigest()[:16]
