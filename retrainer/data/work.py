"""The work file of a build: what has been read of the log so far, so that memory doesn't grow with it, and so that a
build that was killed goes on where it was."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from collector.newest import NewestRight
from retrainer.data.curate import HELD_OUT, Example, Side
from retrainer.data.groups import Groups, Place, side
from retrainer.data.joined import Joined
from retrainer.data.labels import Labels
from retrainer.data.stored import SAMPLES, Dropped

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (
    seq INTEGER PRIMARY KEY, side TEXT NOT NULL, grp TEXT NOT NULL, alike INTEGER NOT NULL, torn INTEGER NOT NULL,
    kept_out TEXT NOT NULL, draw BLOB NOT NULL, id TEXT NOT NULL, log_offset INTEGER NOT NULL, body BLOB NOT NULL,
    weight REAL NOT NULL, corrected INTEGER NOT NULL, imported INTEGER NOT NULL, dropped TEXT
);
"""
_CACHE_KIB = 64 << 10

Ends = tuple[int, int]  # offsets, of interactions and of feedback


class Tally(msgspec.Struct, kw_only=True):
    """What is counted while the log is read. `next`: the offset to go on from; `end`: where reading ends.
    `feedback_next`, `feedback_end`: the same of what clients reported. `production`: what this gateway has
    served, whoever answered. `corrections`: of the operator's file, how many are `given`, and how many `found` in the
    log. `frames`: what its prompts stand in, see retrainer.data.frames."""

    end: int
    feedback_end: int = 0
    next: int = 0
    feedback_next: int = 0
    first: int = 0
    read: int = 0
    corrections: dict[str, int] = {}
    dropped: dict[str, Dropped] = {}
    scrubbers: dict[str, int] = {}
    production: Labels = msgspec.field(default_factory=Labels)
    frames: list[int] = []

    def drop(self, reason: str, record_id: str, offset: int, *, part: Side | None) -> None:
        """Count one record that gives no example. `part`: where it would stand, if that is known."""
        self.dropped.setdefault(reason, Dropped()).add(record_id, offset, held_out=part in HELD_OUT)


class Work:
    """One work file. A file that was begun with other settings, or that can't be read, is begun anew."""

    def __init__(
        self, path: Path, *, settings: Any, ends: tuple[int | None, int | None], log_ends: Ends, joined: Joined
    ) -> None:
        """`ends`: where reading ends, of interactions and of feedback. None: where an earlier attempt said, else at the
        log's end, `log_ends`."""
        self._path = path
        self._settings = hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()
        self.db = self._open()
        begun = self._begun(ends)
        if begun is None:
            self.db.close()
            self._forget()
            self.db = self._open()
        end, feedback_end = (here if wanted is None else wanted for wanted, here in zip(ends, log_ends, strict=True))
        self.tally = begun or Tally(end=end, feedback_end=feedback_end)
        self.groups = Groups(self.db, joined)
        self.right = NewestRight(self.db)
        self.commit()

    def commit(self) -> None:
        """All that was put so far is kept, should this process be killed."""
        self.groups.flush()
        self._put("settings", self._settings.encode())
        self._put("tally", msgspec.json.encode(self.tally))
        self.db.commit()

    def put(
        self, example: Example, place: Place, *, weight: float, corrected: bool, kept_out: str, draw: bytes
    ) -> None:
        """Keep an example. `kept_out`: the reason for which it isn't trained on, or "". Of those with the same prompt
        the newest stays, or the newest corrected one."""
        known = "SELECT id, log_offset, corrected FROM examples WHERE seq = ?"
        row = None if place.new else self.db.execute(known, (place.seq,)).fetchone()
        part = side(place.group)
        if row is not None:
            if row[2] and not corrected:
                self.tally.drop("duplicate", example.id, example.offset, part=part)
                return
            self.tally.drop("duplicate", row[0], row[1], part=part)
        kept = msgspec.structs.replace(example, cluster=place.cluster, group=place.group)
        self.db.execute(
            "INSERT OR REPLACE INTO examples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                place.seq, part.value, place.group, place.alike, place.torn, kept_out, draw, example.id,
                example.offset, msgspec.json.encode(kept), weight, corrected, example.imported,
            ),
        )  # fmt: skip

    def chosen(self, part: Side) -> Iterator[tuple[Example, float]]:
        """The examples of a side that nothing has dropped, with their weights, in the log's order."""
        decoder = msgspec.json.Decoder(Example)
        query = "SELECT body, weight FROM examples WHERE side = ? AND dropped IS NULL ORDER BY seq"
        return ((decoder.decode(body), weight) for body, weight in self.db.execute(query, (part.value,)))

    def dropped(self) -> dict[str, Dropped]:
        """What was dropped, while reading and since, by reason."""
        found = {
            name: msgspec.structs.replace(dropped, samples=list(dropped.samples))
            for name, dropped in self.tally.dropped.items()
        }
        counts = (
            "SELECT dropped, count(*), sum(side != 'train') FROM examples WHERE dropped IS NOT NULL GROUP BY dropped"
        )
        samples = "SELECT id, log_offset FROM examples WHERE dropped = ? ORDER BY seq LIMIT ?"
        for reason, count, held_out in self.db.execute(counts).fetchall():
            entry = found.setdefault(reason, Dropped())
            room = SAMPLES - len(entry.samples)
            shown = self.db.execute(samples, (reason, room)).fetchall()
            entry.samples += [{"id": name, "offset": offset} for name, offset in shown]
            entry.count += count
            entry.held_out += held_out
        return dict(sorted(found.items()))

    def close(self) -> None:
        """Release the file."""
        self.db.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path)
        try:
            _prepare(db)
        except sqlite3.DatabaseError:  # a machine went down while it was written
            db.close()
            self._forget()
            db = sqlite3.connect(self._path)
            _prepare(db)
        return db

    def _begun(self, ends: tuple[int | None, int | None]) -> Tally | None:
        kept = dict(self.db.execute("SELECT name, value FROM meta"))
        if kept.get("settings") != self._settings.encode():
            return None
        try:
            tally = msgspec.json.decode(kept["tally"], type=Tally)
        except msgspec.MsgspecError:  # another version's
            return None
        begun = (tally.end, tally.feedback_end)
        return tally if all(wanted in (None, was) for wanted, was in zip(ends, begun, strict=True)) else None

    def _put(self, name: str, value: bytes) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _forget(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _prepare(db: sqlite3.Connection) -> None:
    """A killed process loses nothing that was committed; a machine that goes down may, and then it is begun anew."""
    for pragma in ("journal_mode = WAL", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}", "temp_store = FILE"):
        db.execute(f"PRAGMA {pragma}")
    db.executescript(_TABLES)
