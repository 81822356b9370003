"""The promoter commits what the fold decides, goes on where it was, and never writes beside another."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from collector import Record, Stream, open_log
from collector.promote import RouteFold
from router import (
    Arm,
    EventKind,
    Events,
    Evidence,
    Metric,
    Observation,
    Registry,
    Rollout,
    RouteEvent,
    RoutePolicy,
    Stage,
    TaskKind,
    Version,
    decode_evidence,
    differences,
    encode_evidence,
    open_registry,
)

POLICY = RoutePolicy.model_validate(
    {
        "teachers": ["o/m"],
        "student": {},
        "rollout": {"steps": [1.0], "min_dwell": "0s", "min_requests": 1},
        "latency": {"block": "1s", "quantile": 0.9},
    }
)


class Route:
    """A log in a folder and a registry, and folds on them."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.log = open_log(f"sqlite:///{folder}/log.db")
        self.registry: Registry = open_registry(registry)
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.events = Events()
        self.events.subscribe(lambda name, fields: self.heard.append((name, fields)))
        self.count = 0

    def fold(self) -> RouteFold:
        return RouteFold("r", POLICY, self.registry, self.log, self.events)

    def append(self, record: Evidence) -> None:
        kept = Record(id=record.id, key="r", at=record.at, value=encode_evidence(record))
        self.log.append([(Stream.EVIDENCE, kept)])

    def event(self, kind: EventKind, **data: Any) -> None:
        self.count += 1
        self.append(RouteEvent(id=f"e{self.count}", at=float(self.count), route="r", kind=kind, version="v", data=data))

    def arrive(self) -> None:
        self.registry.add_version(
            Version(id="v", route="r", kind=TaskKind.CHAT, base="b", engine="e", artefact="v", created_at=1.0)
        )
        self.event(EventKind.POLICY, policy=POLICY.model_dump(mode="json"))
        self.event(EventKind.CANDIDATE, gate="passed")
        self.event(EventKind.READY)

    def pairs(self, n: int) -> None:
        for _ in range(n):
            self.count += 1
            for metric, value, pair in ((Metric.LATENCY, 10.0, 50.0), (Metric.QUALITY, 1.0, 1.0)):
                self.append(
                    Observation(
                        id=f"o{self.count}:{metric}", at=float(self.count), route="r", version="v", metric=metric,
                        arm=Arm.TEACHER, propensity=1.0, value=value, pair_value=pair,
                    )
                )  # fmt: skip
        self.tick()

    def tick(self) -> None:
        self.count += 1
        self.append(RouteEvent(id=f"t{self.count}", at=float(self.count), route="r", kind=EventKind.TICK))

    def replayed(self) -> list[str]:
        records = ((e.offset, decode_evidence(e.value)) for e in self.log.read(Stream.EVIDENCE, 0, 10_000, key="r"))
        return differences("r", records, self.registry.transitions("r"))


@pytest.fixture
def route(tmp_path: Path, database_url: str) -> Any:
    made = Route(tmp_path, database_url)
    yield made
    made.log.close()
    made.registry.close()


def test_evidence_becomes_stages_and_decisions_that_a_replay_reproduces(route: Route) -> None:
    route.arrive()
    route.pairs(300)
    assert route.fold().advance() == 604
    assert route.registry.version("v").stage is Stage.CANARY
    assert route.registry.snapshot().rollouts["r"].fraction == pytest.approx(0.97)
    assert [t.after for t in route.registry.transitions("r")] == [Stage.SHADOW, Stage.CANARY]
    assert [f["after"] for name, f in route.heard if name == "router.stage_changed"] == ["shadow", "canary"]
    assert {f["test"] for name, f in route.heard if name == "router.evidence"} >= {"quality", "errors_alarm"}
    assert route.replayed() == []


def test_a_promoter_killed_after_any_batch_goes_on_to_the_same_decisions(route: Route) -> None:
    route.arrive()
    for _ in range(15):
        route.pairs(20)
        route.fold().advance()  # each time a new one, from the checkpoint
    assert route.registry.version("v").stage is Stage.CANARY
    assert route.replayed() == []


def test_of_two_promoters_the_slower_yields_and_goes_on_from_the_others_commit(route: Route) -> None:
    route.arrive()
    first, second = route.fold(), route.fold()
    first.advance()
    second.advance()
    route.pairs(10)
    assert first.advance() == 21
    assert second.advance() == 0  # a conflict: nothing written
    route.pairs(300)
    assert second.advance() == 601
    assert first.advance() == 0
    assert route.replayed() == []


def test_how_far_behind_the_fold_is_is_told(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.promote.LAG_SECONDS", 0.0)
    route.arrive()
    route.pairs(10)
    fold = route.fold()
    fold.advance()
    fold.advance()
    told = [fields for name, fields in route.heard if name == "log.lag"]
    assert told == [{"reader": "promoter", "route": "r", "offsets": behind} for behind in (25, 0)]


def test_an_open_batch_waits_for_its_end_and_is_judged_whole_however_it_came(route: Route) -> None:
    route.arrive()
    fold = route.fold()
    fold.advance()
    seen = [
        Observation(
            id=f"o{n}", at=float(n), route="r", version="v", metric=Metric.QUALITY, arm=Arm.TEACHER, propensity=1.0,
            value=1.0, pair_value=1.0,
        )
        for n in (3, 1, 2)
    ]  # fmt: skip
    for one in [*seen, seen[0]]:
        route.append(one)
        assert fold.advance() == 0
        assert route.fold().advance() == 0
    assert route.registry.status("r")["evidence"]["v"]["pairs"] == 0
    route.tick()
    assert fold.advance() == 4
    assert route.registry.status("r")["evidence"]["v"]["pairs"] == 3
    assert route.replayed() == []


def test_a_backlog_without_a_tick_is_folded_in_full_batches(route: Route) -> None:
    """As many observations as a promoter missed while it was down."""
    from router.batch import MOST

    route.arrive()
    route.fold().advance()
    records = [
        Record(
            id=f"o{n}", key="r", at=1.0,
            value=encode_evidence(
                Observation(
                    id=f"o{n}", at=1.0, route="r", version="v", metric=Metric.ERROR, arm=Arm.TEACHER, propensity=1.0,
                    value=0.0,
                )
            ),
        )
        for n in range(2 * MOST + 7)
    ]  # fmt: skip
    route.log.append([(Stream.EVIDENCE, record) for record in records])
    fold = route.fold()
    assert fold.advance() == 2 * MOST
    assert fold.advance() == 0
    route.tick()
    assert fold.advance() == 8
    assert route.registry.status("r")["evidence"]["v"]["alarms"]["errors"]["n"] == 2 * MOST + 7


def test_the_policy_is_told_once_and_ticks_come_while_a_version_is_watched(route: Route) -> None:
    fold = route.fold()
    fold.advance()
    assert [e.kind for e in fold.owed(10.0)] == [EventKind.POLICY]
    assert fold.owed(12.0) == []
    route.arrive()
    fold.advance()
    assert [e.kind for e in fold.owed(20.0)] == [EventKind.TICK]
    assert fold.owed(20.5) == []
    assert [e.kind for e in fold.owed(21.1)] == [EventKind.TICK]
    again = route.fold()
    again.advance()
    assert EventKind.POLICY not in [e.kind for e in again.owed(30.0)]


async def promoter(state: Path, registry: str, stop: asyncio.Event) -> None:
    """The process, on the state folder and the registry that a Route uses."""
    from collector import promote
    from router import parse

    config = parse(
        f"""
        state: {state}
        registry: {registry}
        upstreams: {{o: {{base_url: "http://x", distillation_allowed: true}}}}
        engines: {{local: {{}}}}
        routes: {{r: {{teachers: [o/m], student: {{}}}}}}
        """,
        {},
    )
    await promote.run(config, events=Events(), stop=stop)


async def test_a_state_that_can_not_be_read_is_told_in_the_log_and_stays_as_it_is(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    route = Route(tmp_path, database_url)
    kept = (Rollout(route="r", revision=1), b"not a state", 7)
    route.registry.commit(
        "r", expected=(0, 0), rollout=kept[0], stages={}, transitions=[], state=kept[1], offset=kept[2], status={}
    )
    stop = asyncio.Event()
    running = asyncio.create_task(promoter(tmp_path, database_url, stop))
    async with asyncio.timeout(10):
        while not any(r.message == "promoter.waits" for r in caplog.records):  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 10)
    (told,) = [r for r in caplog.records if r.message == "promoter.waits"]
    assert "the rollout state in the registry can't be read" in vars(told)["error"]
    assert route.registry.checkpoint("r") == kept
    route.log.close()
    route.registry.close()


async def test_the_process_folds_what_a_collector_appends(tmp_path: Path, database_url: str) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(promoter(tmp_path, database_url, stop))
    route = Route(tmp_path, database_url)
    route.arrive()
    for _ in range(100):
        await asyncio.sleep(0.05)
        if route.registry.version("v").stage is Stage.SHADOW:
            break
    stop.set()
    await asyncio.wait_for(running, 10)
    assert route.registry.version("v").stage is Stage.SHADOW
    assert route.registry.lease("promoter", holder="another", seconds=1)
    route.log.close()
    route.registry.close()
