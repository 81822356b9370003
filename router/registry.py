"""Versions, rollouts, endpoints and leases: what every process agrees on. In SQLite or PostgreSQL, compare-and-swap.

The promoter alone writes rollouts; engines write endpoints; the retrainer adds versions.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from router.tasks import TaskKind


class Stage(StrEnum):
    """Where a version stands. `candidate -> shadow -> canary -> live -> retired`, or out by rejection or rollback."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


# Of what an engine can't hold all: who serves, what is under test, new candidates, what has ended.
RANK = {Stage.LIVE: 0, Stage.CANARY: 1, Stage.SHADOW: 1, Stage.CANDIDATE: 2, Stage.RETIRED: 3, Stage.ROLLED_BACK: 3}


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One student. `artefact`: its folder in the store. `lineage`: dataset digest, parent, gate verdict, ...

    `tools`: the form in which it has learnt to call tools (see docs/training.md); None where it never saw any.
    """

    id: str
    route: str
    kind: TaskKind
    base: str
    engine: str
    artefact: str
    created_at: float
    stage: Stage = Stage.CANDIDATE
    lineage: dict[str, Any] = {}
    tools: str | None = None


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway worker needs to know of one route.

    `challenger` is the version under test in `stage` shadow or canary; `fraction` is its share of eligible traffic
    (0 in shadow); `live` serves the rest up to 1 - holdback. `step` counts canary steps from 0.

    `challenger_threshold`, `live_threshold`: where a version serves selectively, the confidence under which its answer
    is deferred to the teacher. `probe`: the challenger is asked besides on the teacher's requests up to this share.
    `audit_all`: every answer of the live version is also asked of the teacher.
    """

    route: str
    revision: int = 0
    live: str | None = None
    challenger: str | None = None
    stage: Stage | None = None
    step: int = 0
    fraction: float = 0.0
    paused: bool = False
    challenger_threshold: float | None = None
    live_threshold: float | None = None
    probe: float = 0.0
    audit_all: bool = False


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of the fold, stored with the evidence that made it.

    `offset`: of the evidence record that triggered it. `cause`: a short constant (`quality_passed`, `quality_alarm`,
    `operator`, ...). `evidence`: the numbers (e-values, counts, thresholds) at that moment.
    """

    route: str
    offset: int
    at: float
    version: str
    before: Stage
    after: Stage
    step: int
    fraction: float
    cause: str
    evidence: dict[str, Any] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """One consistent reading: rollouts by route, endpoint URLs by version (ready ones only). `tools`: those of them
    that have learnt to call tools."""

    rollouts: Mapping[str, Rollout]
    endpoints: Mapping[str, str]
    tools: frozenset[str] = frozenset()


class Registry(Protocol):
    """The seam. `open_registry` gives the implementation for a URL. Everything raises RegistryUnavailable."""

    def add_version(self, version: Version) -> None:
        """Add a candidate. Idempotent by id."""

    def version(self, version_id: str) -> Version:
        """Raises UnknownVersion."""

    def versions(self, route: str) -> Sequence[Version]:
        """Oldest first, with the stage that the promoter last committed."""

    def wanted(self, engine: str, most: int) -> Sequence[Version]:
        """What an engine should have loaded, the most important first (see RANK), at most `most`. Of the same rank the
        newest candidates, and those that changed their stage last, a route's second behind the first of each."""

    def snapshot(self) -> Snapshot:
        """What workers read, at most once a second."""

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
        """Write a fold's result in one transaction. Raises Conflict when the stored revision and offset are
        not the `expected` ones, which the fold went on from.

        `rollout.revision` is the new one (unchanged where nothing that workers see has changed). `offset`: the
        first evidence record not yet folded. `status`: evidence against its boundaries, for people. A commit with
        decisions is kept as a place from which a replay may start.
        """

    def checkpoint(self, route: str) -> tuple[Rollout, bytes | None, int]:
        """The last commit's rollout, state and offset; (an empty rollout, None, 0) before the first."""

    def kept_before(self, route: str, offset: int) -> tuple[bytes | None, int]:
        """The state and offset of the last kept commit at or before `offset`; (None, 0) where there is none."""

    def status(self, route: str) -> Mapping[str, Any]:
        """The status of the last commit, or an empty mapping."""

    def transitions(self, route: str) -> Sequence[Transition]:
        """All decisions, oldest first."""

    def publish(self, version_id: str, *, engine: str, url: str) -> None:
        """An engine says that it serves a version at `url` (no trailing slash; /chat/completions is appended)."""

    def withdraw(self, version_id: str) -> None:
        """The version is no longer served."""

    def lease(self, name: str, *, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while somebody else holds it."""

    def release(self, name: str, *, holder: str) -> None:
        """Give a lease back, if held."""

    def close(self) -> None:
        """Close the connections."""
