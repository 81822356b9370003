"""The registry: one truth for all processes, and only one writer wins; in SQLite and in PostgreSQL alike."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier

import msgspec
import pytest
from racing import race

from router import (
    Conflict,
    Registry,
    RegistryUnavailable,
    Rollout,
    Stage,
    TaskKind,
    Transition,
    UnknownVersion,
    Version,
    open_registry,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(database_url: str, clock: Clock) -> Iterator[Registry]:
    opened = open_registry(database_url, clock=clock)
    yield opened
    opened.close()


def version(name: str, at: float = 1.0, engine: str = "local") -> Version:
    return Version(
        id=name,
        route="r",
        kind=TaskKind.CHAT,
        base="b",
        engine=engine,
        artefact=name,
        created_at=at,
        lineage={"a": [1]},
    )


def commit(
    registry: Registry,
    *,
    expected: tuple[int, int],
    revision: int,
    offset: int,
    stages: dict[str, Stage] | None = None,
    route: str = "r",
) -> None:
    moved = Transition(
        route=route, offset=offset - 1, at=5.0, version="v", before=Stage.SHADOW, after=Stage.CANARY, step=0,
        fraction=0.1, cause="c", evidence={"log_e": 3.0000000000000004},
    )  # fmt: skip
    registry.commit(
        route,
        expected=expected,
        rollout=Rollout(route=route, revision=revision, live="v"),
        stages=stages or {},
        transitions=[moved],
        state=b"state",
        offset=offset,
        status={"live": "v"},
    )


def test_a_version_is_added_once_and_found(registry: Registry) -> None:
    registry.add_version(version("a"))
    registry.add_version(version("a", at=9.0))
    assert registry.versions("r") == [version("a")]
    assert registry.version("a").lineage == {"a": [1]}
    with pytest.raises(UnknownVersion, match="'b'"):
        registry.version("b")


def test_versions_come_oldest_first_and_at_the_same_time_by_the_bytes_of_their_names(registry: Registry) -> None:
    for name, at in (("b", 2.0), ("a", 2.0), ("B", 2.0), ("z", 1.0)):
        registry.add_version(version(name, at=at))
    assert [v.id for v in registry.versions("r")] == ["z", "B", "a", "b"]


def test_a_commit_is_read_back_whole(registry: Registry) -> None:
    registry.add_version(version("v"))
    assert registry.checkpoint("r") == (Rollout(route="r"), None, 0)
    commit(registry, expected=(0, 0), revision=1, offset=7, stages={"v": Stage.LIVE})
    assert registry.checkpoint("r") == (Rollout(route="r", revision=1, live="v"), b"state", 7)
    assert registry.version("v").stage is Stage.LIVE
    assert registry.status("r") == {"live": "v"}
    assert registry.snapshot().rollouts["r"].live == "v"
    (kept,) = registry.transitions("r")
    assert kept.evidence == {"log_e": 3.0000000000000004}


def test_a_commit_on_an_old_revision_or_offset_is_a_conflict_and_changes_nothing(registry: Registry) -> None:
    commit(registry, expected=(0, 0), revision=1, offset=7)
    for expected in ((0, 7), (1, 6), (0, 0)):
        with pytest.raises(Conflict, match=r"found \(1, 7\)"):
            commit(registry, expected=expected, revision=2, offset=9)
    assert registry.checkpoint("r")[2] == 7
    assert len(registry.transitions("r")) == 1


def test_an_engine_wants_those_in_service_then_candidates_then_the_last_retired(registry: Registry) -> None:
    stages = {
        "old": Stage.RETIRED,
        "older": Stage.ROLLED_BACK,
        "bad": Stage.REJECTED,
        "live": Stage.LIVE,
        "next": Stage.SHADOW,
    }
    for n, name in enumerate([*stages, "new"]):
        registry.add_version(version(name, at=float(n)))
    registry.add_version(version("elsewhere", engine="other"))
    commit(registry, expected=(0, 0), revision=1, offset=3, stages={"older": stages["older"]})
    commit(registry, expected=(1, 3), revision=2, offset=9, stages=stages)
    names = [v.id for v in registry.wanted("local", 9)]
    assert names == ["live", "next", "new", "old", "older"]
    assert len(registry.wanted("local", 3)) == 3


def test_what_one_route_tests_never_takes_the_place_of_what_another_serves(registry: Registry) -> None:
    stages = {"live": Stage.LIVE, "next": Stage.SHADOW, "was": Stage.RETIRED, "before": Stage.RETIRED}
    for route, at, offset in (("r", 1.0, 9), ("busy", 2.0, 9_000_000)):
        for name in stages:
            made = version(f"{route}-{name}", at=at)
            registry.add_version(msgspec.structs.replace(made, route=route))
        commit(
            registry, expected=(0, 0), revision=1, offset=offset, route=route, stages={f"{route}-before": Stage.RETIRED}
        )
        moved = {f"{route}-{name}": stage for name, stage in stages.items()}
        commit(registry, expected=(1, offset), revision=2, offset=offset + 1, route=route, stages=moved)
    names = [v.id for v in registry.wanted("local", 9)]
    assert names[:4] == ["busy-live", "r-live", "busy-next", "r-next"]
    assert names[4:] == ["busy-was", "r-was", "busy-before", "r-before"]


def test_a_snapshot_tells_which_of_the_served_versions_call_tools(registry: Registry) -> None:
    registry.add_version(msgspec.structs.replace(version("calls"), tools="tags-1"))
    registry.add_version(msgspec.structs.replace(version("away"), tools="tags-1"))
    registry.add_version(version("plain"))
    for name in ("calls", "plain", "unknown"):
        registry.publish(name, engine="local", url=f"http://{name}")
    found = registry.snapshot()
    assert found.tools == {"calls"}
    assert set(found.endpoints) == {"calls", "plain", "unknown"}


def test_endpoints_come_and_go(registry: Registry) -> None:
    registry.publish("v", engine="local", url="http://a")
    registry.publish("v", engine="local", url="http://b")
    assert registry.snapshot().endpoints == {"v": "http://b"}
    registry.withdraw("v")
    assert registry.snapshot().endpoints == {}


def test_a_lease_has_one_holder_until_it_expires_or_is_given_back(registry: Registry, clock: Clock) -> None:
    assert registry.lease("p", holder="a", seconds=10)
    assert not registry.lease("p", holder="b", seconds=10)
    clock.now += 9
    assert registry.lease("p", holder="a", seconds=10)
    clock.now += 11
    assert registry.lease("p", holder="b", seconds=10)
    registry.release("p", holder="a")
    assert not registry.lease("p", holder="a", seconds=10)
    registry.release("p", holder="b")
    assert registry.lease("p", holder="a", seconds=10)


def test_times_and_offsets_keep_all_their_digits(registry: Registry) -> None:
    registry.add_version(version("v", at=1753500000.1234567))
    commit(registry, expected=(0, 0), revision=1, offset=2**53 + 1)
    assert registry.version("v").created_at == 1753500000.1234567
    assert registry.checkpoint("r")[2] == 2**53 + 1


def test_a_commit_with_decisions_is_kept_as_a_place_to_replay_from(registry: Registry) -> None:
    assert registry.kept_before("r", 100) == (None, 0)
    commit(registry, expected=(0, 0), revision=1, offset=7)
    registry.commit(
        "r", expected=(1, 7), rollout=Rollout(route="r", revision=1), stages={}, transitions=[], state=b"undecided",
        offset=8, status={},
    )  # fmt: skip
    commit(registry, expected=(1, 8), revision=2, offset=9)
    assert registry.kept_before("r", 6) == (None, 0)
    assert registry.kept_before("r", 8) == (b"state", 7)
    assert registry.kept_before("r", 100) == (b"state", 9)


def test_a_conflict_on_a_route_without_a_commit_leaves_it_without_one(registry: Registry) -> None:
    with pytest.raises(Conflict, match=r"found \(0, 0\)"):
        commit(registry, expected=(1, 7), revision=2, offset=9)
    assert registry.checkpoint("r") == (Rollout(route="r"), None, 0)
    assert registry.snapshot().rollouts == {}
    assert registry.status("r") == {}


def test_threads_share_a_registry(registry: Registry) -> None:
    def work(number: int) -> bool:
        registry.publish(f"v{number}", engine="local", url=f"http://{number}")
        commit(registry, expected=(0, 0), revision=1, offset=1, route=f"r{number}")
        return registry.snapshot().rollouts[f"r{number}"].live == "v"

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(40)))
    found = registry.snapshot()
    assert found.endpoints == {f"v{n}": f"http://{n}" for n in range(40)}
    assert set(found.rollouts) == {f"r{n}" for n in range(40)}


def test_a_closed_registry_says_so(registry: Registry) -> None:
    registry.close()
    with pytest.raises(RegistryUnavailable, match="closed"):
        registry.snapshot()
    with pytest.raises(RegistryUnavailable, match="closed"):
        registry.withdraw("v")


ROUNDS = 30


def _commits(url: str, number: int, barrier: Barrier) -> int:
    wins = 0
    with closing(open_registry(url)) as registry:
        barrier.wait()
        for _ in range(ROUNDS):
            rollout, _, offset = registry.checkpoint("r")
            try:
                commit(registry, expected=(rollout.revision, offset), revision=rollout.revision + 1, offset=offset + 1)
                wins += 1
            except Conflict:
                continue
    return wins


def test_two_processes_never_both_write_the_same_revision(database_url: str) -> None:
    wins = sum(race(_commits, database_url))
    assert wins >= ROUNDS
    with closing(open_registry(database_url)) as registry:
        assert registry.checkpoint("r")[0].revision == wins == len(registry.transitions("r"))


def _first_commits(url: str, number: int, barrier: Barrier) -> list[int]:
    won = []
    with closing(open_registry(url)) as registry:
        for n in range(ROUNDS):
            barrier.wait()
            try:
                commit(registry, expected=(0, 0), revision=1, offset=1, route=f"r{n}")
                won.append(n)
            except Conflict:
                continue
    return won


def test_of_two_processes_one_makes_a_routes_first_commit(database_url: str) -> None:
    first, second = race(_first_commits, database_url)
    assert sorted(first + second) == list(range(ROUNDS))
    with closing(open_registry(database_url)) as registry:
        assert all(len(registry.transitions(f"r{n}")) == 1 for n in range(ROUNDS))


def _leases(url: str, number: int, barrier: Barrier) -> list[int]:
    won = []
    with closing(open_registry(url)) as registry:
        for n in range(ROUNDS):
            barrier.wait()
            if registry.lease(f"new {n}", holder=f"holder {number}", seconds=60):
                won.append(n)
        for n in range(ROUNDS):
            barrier.wait()
            if registry.lease(f"expired {n}", holder=f"holder {number}", seconds=60):
                won.append(ROUNDS + n)
    return won


def test_of_two_processes_one_gets_a_lease_that_is_new_or_has_expired(database_url: str, clock: Clock) -> None:
    with closing(open_registry(database_url, clock=clock)) as registry:  # long ago, by its clock
        assert all(registry.lease(f"expired {n}", holder="before", seconds=1) for n in range(ROUNDS))
    first, second = race(_leases, database_url)
    assert sorted(first + second) == list(range(2 * ROUNDS))
