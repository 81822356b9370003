"""The registry: one truth for all processes, and only one writer wins."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def registry(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    opened = open_registry(f"sqlite:///{tmp_path}/deep/registry.db", clock=clock)
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
    registry: Registry, *, expected: tuple[int, int], revision: int, offset: int, stages: dict[str, Stage] | None = None
) -> None:
    moved = Transition(
        route="r", offset=offset - 1, at=5.0, version="v", before=Stage.SHADOW, after=Stage.CANARY, step=0,
        fraction=0.1, cause="c", evidence={"log_e": 3.0000000000000004},
    )  # fmt: skip
    registry.commit(
        "r",
        expected=expected,
        rollout=Rollout(route="r", revision=revision, live="v"),
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
    assert set(names[:2]) == {"live", "next"}
    assert names[2:] == ["new", "old", "older"]
    assert len(registry.wanted("local", 3)) == 3


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


def _race(url: str, start: "multiprocessing.synchronize.Event", won: "multiprocessing.Queue[int]") -> None:  # type: ignore[name-defined]
    registry = open_registry(url)
    start.wait()
    wins = 0
    for _ in range(30):
        rollout, _, offset = registry.checkpoint("r")
        try:
            commit(registry, expected=(rollout.revision, offset), revision=rollout.revision + 1, offset=offset + 1)
            wins += 1
        except Conflict:
            continue
    won.put(wins)


def test_two_processes_never_both_write_the_same_revision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    open_registry(url).close()
    context = multiprocessing.get_context("spawn")
    start, won = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(url, start, won)) for _ in range(2)]
    for racer in racers:
        racer.start()
    start.set()
    wins = sum(won.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    registry = open_registry(url)
    assert registry.checkpoint("r")[0].revision == wins == len(registry.transitions("r"))
    registry.close()


def test_a_place_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but long enough to be read as one by mistake" * 20)
    with pytest.raises(RegistryUnavailable, match="file"):
        open_registry(f"sqlite:///{tmp_path}/file")
    with pytest.raises(RegistryUnavailable, match="write sqlite:///PATH"):
        open_registry("mysql://x")
