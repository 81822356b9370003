"""The registry over a database: one transaction a commit, compare-and-swap on the rollout's revision and offset."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from router.errors import Conflict, UnknownVersion
from router.registry import RANK, Registry, Rollout, Snapshot, Stage, Transition, Version
from router.sql import Database, open_database

# One script a schema version; a script that has run anywhere never changes.
SCHEMA = (
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

encode, decode = msgspec.json.encode, msgspec.json.decode


def open_registry(url: str, *, clock: Callable[[], float] = time.time) -> Registry:
    """The registry at a database's URL (see open_database); made where it doesn't exist.

    Raises ConfigError, RegistryUnavailable.
    """
    return SqlRegistry(open_database(url, SCHEMA, "registry"), clock=clock)


class SqlRegistry:
    """Safe to use from several threads and processes."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def add_version(self, version: Version) -> None:
        """See Registry."""
        with self._database.transaction() as session:
            session.execute(
                "INSERT INTO versions (id, route, created_at, stage, data) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                version.id, version.route, version.created_at, version.stage, encode(version),
            )  # fmt: skip

    def version(self, version_id: str) -> Version:
        """See Registry."""
        rows = self._database.read("SELECT data, stage FROM versions WHERE id = ?", version_id)
        if not rows:
            raise UnknownVersion(f"the registry holds no version {version_id!r}")
        return _version(rows[0])

    def versions(self, route: str) -> Sequence[Version]:
        """See Registry."""
        rows = self._database.read("SELECT data, stage FROM versions WHERE route = ? ORDER BY created_at, id", route)
        return [_version(row) for row in rows]

    def wanted(self, engine: str, most: int) -> Sequence[Version]:
        """See Registry."""
        rows = self._database.read("SELECT data, stage, stage_order FROM versions WHERE stage != ?", Stage.REJECTED)
        found = [(_version(row), int(row[2])) for row in rows]
        found = [row for row in found if row[0].engine == engine]
        found.sort(key=lambda row: (-row[1], -row[0].created_at))
        before: Counter[tuple[str, int]] = Counter()
        places = {}
        for version, _ in found:  # a stage's order is an offset: of one route it says what came last, of two nothing
            rank = RANK[version.stage]
            places[version.id] = rank, before[version.route, rank], -version.created_at
            before[version.route, rank] += 1
        return sorted((version for version, _ in found), key=lambda version: places[version.id])[:most]

    def snapshot(self) -> Snapshot:
        """See Registry."""
        rows = self._database.read(
            "SELECT data, NULL, NULL FROM rollouts UNION ALL SELECT v.data, e.version, e.url FROM endpoints e "
            "LEFT JOIN versions v ON v.id = e.version"
        )
        rollouts = [decode(data, type=Rollout) for data, version, _ in rows if version is None]
        endpoints = {version: url for _, version, url in rows if version is not None}
        tools = frozenset(
            v for data, v, _ in rows if v is not None and data is not None and decode(data, type=Version).tools
        )
        return Snapshot({rollout.route: rollout for rollout in rollouts}, endpoints, tools)

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
        with self._database.transaction() as session:
            # The row is there from here on, so that there is one to lock: of two first commits one waits.
            session.execute(
                "INSERT INTO rollouts (route, data, state, next, revision, status) VALUES (?, ?, ?, 0, 0, ?) "
                "ON CONFLICT DO NOTHING",
                route, b"", b"", b"",
            )  # fmt: skip
            swapped = session.execute(
                "UPDATE rollouts SET data = ?, state = ?, next = ?, revision = ?, status = ? "
                "WHERE route = ? AND revision = ? AND next = ?",
                encode(rollout), state, offset, rollout.revision, encode(status), route, *expected,
            )  # fmt: skip
            if not swapped:
                (found,) = session.rows("SELECT revision, next FROM rollouts WHERE route = ?", route)
                raise Conflict(f"route {route!r}: expected (revision, offset) {expected}, found {found}")
            for version, stage in stages.items():
                session.execute(
                    "UPDATE versions SET stage = ?, stage_order = ? WHERE id = ? AND stage != ?",
                    stage, offset, version, stage,
                )  # fmt: skip
            if transitions:
                session.execute(
                    "INSERT INTO kept (route, next, state) VALUES (?, ?, ?) "
                    "ON CONFLICT (route, next) DO UPDATE SET state = excluded.state",
                    route, offset, state,
                )  # fmt: skip
            for transition in transitions:
                session.execute("INSERT INTO transitions (route, data) VALUES (?, ?)", route, encode(transition))

    def checkpoint(self, route: str) -> tuple[Rollout, bytes | None, int]:
        """See Registry."""
        rows = self._database.read("SELECT data, state, next FROM rollouts WHERE route = ?", route)
        if not rows:
            return Rollout(route=route), None, 0
        data, state, offset = rows[0]
        return decode(data, type=Rollout), state, offset

    def kept_before(self, route: str, offset: int) -> tuple[bytes | None, int]:
        """See Registry."""
        rows = self._database.read(
            "SELECT state, next FROM kept WHERE route = ? AND next <= ? ORDER BY next DESC LIMIT 1", route, offset
        )
        return (rows[0][0], rows[0][1]) if rows else (None, 0)

    def status(self, route: str) -> Mapping[str, Any]:
        """See Registry."""
        rows = self._database.read("SELECT status FROM rollouts WHERE route = ?", route)
        return decode(rows[0][0], type=dict[str, Any]) if rows else {}

    def transitions(self, route: str) -> Sequence[Transition]:
        """See Registry."""
        rows = self._database.read("SELECT data FROM transitions WHERE route = ? ORDER BY number", route)
        return [decode(data, type=Transition) for (data,) in rows]

    def publish(self, version_id: str, *, engine: str, url: str) -> None:
        """See Registry."""
        with self._database.transaction() as session:
            session.execute(
                "INSERT INTO endpoints (version, engine, url) VALUES (?, ?, ?) "
                "ON CONFLICT (version) DO UPDATE SET engine = excluded.engine, url = excluded.url",
                version_id, engine, url,
            )  # fmt: skip

    def withdraw(self, version_id: str) -> None:
        """See Registry."""
        with self._database.transaction() as session:
            session.execute("DELETE FROM endpoints WHERE version = ?", version_id)

    def lease(self, name: str, *, holder: str, seconds: float) -> bool:
        """See Registry."""
        now = self._clock()
        with self._database.transaction() as session:
            taken = session.execute(
                "INSERT INTO leases (name, holder, until) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until "
                "WHERE leases.holder = excluded.holder OR leases.until <= ?",
                name, holder, now + seconds, now,
            )  # fmt: skip
        return taken == 1

    def release(self, name: str, *, holder: str) -> None:
        """See Registry."""
        with self._database.transaction() as session:
            session.execute("DELETE FROM leases WHERE name = ? AND holder = ?", name, holder)

    def close(self) -> None:
        """See Registry."""
        self._database.close()


def _version(row: Sequence[Any]) -> Version:
    return msgspec.structs.replace(decode(row[0], type=Version), stage=Stage(row[1]))
