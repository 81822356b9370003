"""Which prompts belong together, found one after the other and kept on disk: a conversation, and near-duplicates.

A record's side never changes: groups are formed in the log's order, each record joining the earliest one that it
resembles, and a group's side is a hash of its first record's conversation. Which group a conversation has joined is
remembered, and where one of its prompts stands that stands elsewhere, for when that record has gone (see
retrainer.data.joined). What may or may not be learnt from is decided
later and has no say in it.

Prompts that share a band of their sketches are compared; of a band that very many share the earliest MOST_COMPARED are
(a pair has 18 bands to be found by). One that would join two sides is kept out of the index, and leads nobody across.

The index (of prompts, bands and conversations, by 64-bit hashes) is random access all over. What is new stays in memory
until `flush` writes it in the hashes' order: each page of the file is then written once, however many fall on it.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from retrainer.data.curate import Side
from retrainer.data.joined import Joined
from retrainer.data.minhash import BANDS, Sketch

MOST_COMPARED = 64
_TABLES = """
CREATE TABLE IF NOT EXISTS prompts (
    seq INTEGER PRIMARY KEY, key BLOB NOT NULL, cluster TEXT NOT NULL, grp TEXT NOT NULL, alike INTEGER NOT NULL,
    torn INTEGER NOT NULL, marks BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS hashes (hash INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS joined (spoken INTEGER PRIMARY KEY, grp TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bands (hash INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (hash, seq)) WITHOUT ROWID;
"""
_NEW = "CREATE TABLE new.bands (hash INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (hash, seq)) WITHOUT ROWID"
_IN = "SELECT hash, seq FROM {}.bands WHERE hash IN (" + ", ".join("?" * BANDS) + ")"  # noqa: S608 - placeholders alone
_SHARED = " UNION ALL ".join(_IN.format(database) for database in ("main", "new"))


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
    """The groups of a work file, which whoever has opened it commits, after a `flush`. `joined`: the route's."""

    def __init__(self, db: sqlite3.Connection, joined: Joined) -> None:
        self._db = db
        self._joined = joined
        db.executescript(_TABLES)
        db.execute("ATTACH ':memory:' AS new")
        db.execute(_NEW)
        self._next = db.execute("SELECT coalesce(max(seq) + 1, 0) FROM prompts").fetchone()[0]
        self._new: dict[int, int] = {}
        self._new_joined: dict[int, str] = {}

    def flush(self) -> None:
        """Write what is only in memory yet."""
        self._db.executemany("INSERT INTO hashes VALUES (?, ?)", sorted(self._new.items()))
        self._new.clear()
        self._db.executemany("INSERT OR IGNORE INTO joined VALUES (?, ?)", sorted(self._new_joined.items()))
        self._new_joined.clear()
        self._db.execute("INSERT INTO main.bands SELECT hash, seq FROM new.bands")
        self._db.execute("DELETE FROM new.bands")

    def remember(self) -> None:
        """Keep beyond this work file who has joined which group. To be called after a `flush`."""
        self._joined.keep(self._db.execute("SELECT spoken, grp FROM joined"))

    def known(self, key: bytes) -> Place | None:
        """Where a prompt already stands. `key`: its digest, 16 bytes."""
        seq = self._find(_hash(b"prompt", key))
        row = None if seq is None else self._row(seq)
        if row is None or row[1] != key:
            return None
        return Place(row[0], row[2], row[3], row[4], bool(row[5]), False)

    def again(self, place: Place, key: bytes, cluster: str) -> None:
        """A prompt that is known came in this conversation. One that begins with it joins its group; one that stands
        elsewhere stays there (what many say in the middle of theirs must not draw them all together), but for the
        prompt itself."""
        if place.torn:
            return
        spoken = _hash(b"conversation", cluster.encode())
        talk, before = self._find(spoken), self._joined.group(spoken)
        if talk is None and before in (None, place.group):
            self._stands(spoken, place)
        elif (before if talk is None else self._row(talk)[3]) != place.group:
            self._new_joined[_said(key, cluster)] = place.group

    def place(self, key: bytes, cluster: str, sketch: Sketch, *, near: Iterable[int] = ()) -> Place:
        """Give a prompt that isn't known its group. `near`: prompts that mean the same."""
        shared = self._shared(sketch)
        alike = [self._row(number) for number in sorted({*self._alike(sketch, shared), *near})]  # the earliest first
        candidates = [row[3] for row in alike]
        spoken = _hash(b"conversation", cluster.encode())
        talk = self._find(spoken)
        before = self._joined.group(spoken) if talk is None else self._row(talk)[3]
        stood = self._joined.group(_said(key, cluster))
        if stood is not None or before is not None:
            candidates.insert(0, stood or before or "")
        seq, self._next = self._next, self._next + 1
        torn = len({side(group) for group in candidates}) > 1
        group = candidates[0] if candidates else _group_of(cluster)
        place = Place(seq, cluster, group, alike[0][4] if alike else seq, torn, True)
        row = (seq, key, cluster, group, place.alike, torn, sketch.marks.tobytes())
        self._db.execute("INSERT INTO prompts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._new.setdefault(_hash(b"prompt", key), seq)
        if not torn:
            if talk is None and before in (None, group):
                self._stands(spoken, place)
            full = Counter(band for band, _ in shared)
            fresh = [(band, seq) for band in sketch.bands if full[band] < MOST_COMPARED]
            self._db.executemany("INSERT INTO new.bands VALUES (?, ?)", fresh)
        return place

    def largest(self) -> int:
        """How many distinct prompts the largest group has."""
        counts = "SELECT count(*) FROM prompts GROUP BY grp ORDER BY 1 DESC LIMIT 1"
        return int((self._db.execute(counts).fetchone() or (0,))[0])

    def sides(self, sketch: Sketch) -> set[Side]:
        """Where the prompts stand that are near-duplicates of one with this sketch."""
        return {side(self._row(seq)[3]) for seq in self._alike(sketch, self._shared(sketch))}

    def _stands(self, spoken: int, place: Place) -> None:
        """A conversation, by its hash, has its group."""
        self._new[spoken] = place.seq
        self._new_joined[spoken] = place.group

    def _shared(self, sketch: Sketch) -> list[tuple[int, int]]:
        """The bands that it shares, with whom."""
        return self._db.execute(_SHARED, (*sketch.bands, *sketch.bands)).fetchall()

    def _alike(self, sketch: Sketch, shared: Iterable[tuple[int, int]]) -> list[int]:
        numbers = sorted({seq for _, seq in shared})
        if not numbers:
            return []
        marks = b"".join(
            self._db.execute("SELECT marks FROM prompts WHERE seq = ?", (number,)).fetchone()[0] for number in numbers
        )
        found = sketch.alike(np.frombuffer(marks, dtype=np.uint8).reshape(len(numbers), -1))
        return [number for number, near in zip(numbers, found, strict=True) if near]

    def _find(self, number: int) -> int | None:
        seq = self._new.get(number)
        if seq is None:
            row = self._db.execute("SELECT seq FROM hashes WHERE hash = ?", (number,)).fetchone()
            seq = None if row is None else row[0]
        return seq

    def _row(self, seq: int) -> tuple[int, bytes, str, str, int, int]:
        found: tuple[int, bytes, str, str, int, int] = self._db.execute(
            "SELECT seq, key, cluster, grp, alike, torn FROM prompts WHERE seq = ?", (seq,)
        ).fetchone()
        return found


def _hash(kind: bytes, value: bytes) -> int:
    """64 bits, signed. Should two conversations ever share them, they are one group."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=8, person=kind).digest(), signed=True)


def _said(key: bytes, cluster: str) -> int:
    """A prompt in a conversation."""
    return _hash(b"said", key + cluster.encode())


def side(group_key: str) -> Side:
    """80% train, 10% validation, 10% test, by a hash of the group."""
    u = int.from_bytes(hashlib.sha256(f"split:{group_key}".encode()).digest()[:8]) / 2**64
    if u < 0.8:
        return Side.TRAIN
    return Side.VALIDATION if u < 0.9 else Side.TEST


def _group_of(cluster: str) -> str:
    return hashlib.sha256(f"group:{cluster}".encode()).hexdigest()[:16]
