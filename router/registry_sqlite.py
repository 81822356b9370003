"""The registry in SQLite: WAL, one transaction a commit, compare-and-swap on the rollout's revision and offset."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from router.errors import Conflict, RegistryUnavailable, UnknownVersion
from router.registry import Registry, Rollout, Snapshot, Stage, Transition, Version

_SCHEMA = (
    """
    CREATE TABLE versions (id TEXT PRIMARY KEY, route TEXT NOT NULL, created_at REAL NOT NULL, stage TEXT NOT NULL,
                           stage_order INTEGER NOT NULL DEFAULT 0, data BLOB NOT NULL);
    CREATE TABLE rollouts (route TEXT PRIMARY KEY, data BLOB NOT NULL, state BLOB NOT NULL, next INTEGER NOT NULL,
                           revision INTEGER NOT NULL, status BLOB NOT NULL);
    CREATE TABLE transitions (number INTEGER PRIMARY KEY AUTOINCREMENT, route TEXT NOT NULL, data BLOB NOT NULL);
    CREATE TABLE endpoints (version TEXT PRIMARY KEY, engine TEXT NOT NULL, url TEXT NOT NULL);
    CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL);
    """,
    "CREATE TABLE kept (route TEXT NOT NULL, next INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (route, next))",
)
_WANTED_ORDER = {Stage.LIVE: 0, Stage.CANARY: 0, Stage.SHADOW: 0, Stage.CANDIDATE: 1, Stage.RETIRED: 2}

encode, decode = msgspec.json.encode, msgspec.json.decode


def open_registry(url: str, *, clock: Callable[[], float] = time.time) -> Registry:
    """The registry at `sqlite:///relative/path` or `sqlite:////absolute/path`; made where it doesn't exist.

    Raises RegistryUnavailable.
    """
    if not url.startswith("sqlite:///"):
        raise RegistryUnavailable(f"registry {url!r} is not supported; write sqlite:///PATH")
    return SqliteRegistry(Path(url.removeprefix("sqlite:///")), clock=clock)


class SqliteRegistry:
    """Safe to use from several threads and processes."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise RegistryUnavailable(f"registry {path}: {error}") from error
        with self._write() as db:
            (done,) = db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(_SCHEMA[done:], start=done + 1):
                for statement in script.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")

    def add_version(self, version: Version) -> None:
        """See Registry."""
        with self._write() as db:
            db.execute(
                "INSERT OR IGNORE INTO versions (id, route, created_at, stage, data) VALUES (?, ?, ?, ?, ?)",
                (version.id, version.route, version.created_at, version.stage, encode(version)),
            )

    def version(self, version_id: str) -> Version:
        """See Registry."""
        rows = self._read("SELECT data, stage FROM versions WHERE id = ?", version_id)
        if not rows:
            raise UnknownVersion(f"the registry holds no version {version_id!r}")
        return _version(rows[0])

    def versions(self, route: str) -> Sequence[Version]:
        """See Registry."""
        rows = self._read("SELECT data, stage FROM versions WHERE route = ? ORDER BY created_at, id", route)
        return [_version(row) for row in rows]

    def wanted(self, engine: str, most: int) -> Sequence[Version]:
        """See Registry."""
        rows = self._read("SELECT data, stage, stage_order, created_at FROM versions WHERE stage != ?", Stage.REJECTED)
        found = [(_version(row), row[2], row[3]) for row in rows]
        found = [row for row in found if row[0].engine == engine]
        found.sort(key=lambda row: (_WANTED_ORDER.get(row[0].stage, 2), -row[1], -row[2]))
        return [version for version, _, _ in found[:most]]

    def snapshot(self) -> Snapshot:
        """See Registry."""
        with self._lock, _translated():
            self._db.execute("BEGIN")
            try:
                rollouts = [decode(data, type=Rollout) for (data,) in self._db.execute("SELECT data FROM rollouts")]
                endpoints = dict(self._db.execute("SELECT version, url FROM endpoints"))
            finally:
                self._db.execute("COMMIT")
        return Snapshot({rollout.route: rollout for rollout in rollouts}, endpoints)

    def commit(
        self,
        route: str,
        *,
        expected: tuple[int, int],
        rollout: Rollout,
        stages: Mapping[str, Stage],
        transitions: Sequence[Transition],
        state: bytes,
        offset: int,
        status: Mapping[str, Any],
    ) -> None:
        """See Registry."""
        with self._write() as db:
            row = db.execute("SELECT revision, next FROM rollouts WHERE route = ?", (route,)).fetchone()
            found = row or (0, 0)
            if found != expected:
                raise Conflict(f"route {route!r}: expected (revision, offset) {expected}, found {found}")
            db.execute(
                "REPLACE INTO rollouts (route, data, state, next, revision, status) VALUES (?, ?, ?, ?, ?, ?)",
                (route, encode(rollout), state, offset, rollout.revision, encode(status)),
            )
            for version, stage in stages.items():
                db.execute(
                    "UPDATE versions SET stage = ?, stage_order = ? WHERE id = ? AND stage != ?",
                    (stage, offset, version, stage),
                )
            if transitions:
                db.execute("REPLACE INTO kept (route, next, state) VALUES (?, ?, ?)", (route, offset, state))
            db.executemany(
                "INSERT INTO transitions (route, data) VALUES (?, ?)", [(route, encode(t)) for t in transitions]
            )

    def checkpoint(self, route: str) -> tuple[Rollout, bytes | None, int]:
        """See Registry."""
        rows = self._read("SELECT data, state, next FROM rollouts WHERE route = ?", route)
        if not rows:
            return Rollout(route=route), None, 0
        data, state, offset = rows[0]
        return decode(data, type=Rollout), state, offset

    def kept_before(self, route: str, offset: int) -> tuple[bytes | None, int]:
        """See Registry."""
        rows = self._read(
            "SELECT state, next FROM kept WHERE route = ? AND next <= ? ORDER BY next DESC LIMIT 1", route, offset
        )
        return rows[0] if rows else (None, 0)

    def status(self, route: str) -> Mapping[str, Any]:
        """See Registry."""
        rows = self._read("SELECT status FROM rollouts WHERE route = ?", route)
        return decode(rows[0][0], type=dict[str, Any]) if rows else {}

    def transitions(self, route: str) -> Sequence[Transition]:
        """See Registry."""
        rows = self._read("SELECT data FROM transitions WHERE route = ? ORDER BY number", route)
        return [decode(data, type=Transition) for (data,) in rows]

    def publish(self, version_id: str, *, engine: str, url: str) -> None:
        """See Registry."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", (version_id, engine, url))

    def withdraw(self, version_id: str) -> None:
        """See Registry."""
        with self._write() as db:
            db.execute("DELETE FROM endpoints WHERE version = ?", (version_id,))

    def lease(self, name: str, *, holder: str, seconds: float) -> bool:
        """See Registry."""
        now = self._clock()
        with self._write() as db:
            row = db.execute("SELECT holder, until FROM leases WHERE name = ?", (name,)).fetchone()
            if row and row[0] != holder and row[1] > now:
                return False
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (name, holder, now + seconds))
        return True

    def release(self, name: str, *, holder: str) -> None:
        """See Registry."""
        with self._write() as db:
            db.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))

    def close(self) -> None:
        """See Registry."""
        with self._lock:
            self._db.close()

    def _read(self, query: str, *arguments: object) -> list[Any]:
        with self._lock, _translated():
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated():
            if self._db.in_transaction:
                raise RegistryUnavailable("the registry is used within its own transaction")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _version(row: Sequence[Any]) -> Version:
    return msgspec.structs.replace(decode(row[0], type=Version), stage=Stage(row[1]))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RegistryUnavailable(f"the registry can't be used: {error}") from error
