"""A run of the demo without its processes: evidence told into a real log, decisions by the promoter's fold."""

from pathlib import Path
from typing import Any

import msgspec

from collector import Record, Stream, open_log
from collector.promote import RouteFold
from retort.demo.outcome import Outcome, Told, build
from retort.demo.settings import ROUTE, SWAPPED, prepare
from retort.demo.traffic import Sent
from retort.demo.watch import Watch
from retort.settings import load
from retrainer import CycleState, Report, Request
from router import Arm, Config, EventKind, Events, Evidence, Metric, Observation, RouteEvent, Stage, TaskKind, Version
from router import encode_evidence as encode

STUDENT, BAD, TWIN = "community-1", "community-2", "community-1-twin"


class Run:
    """`watch` looks on, as in the demo; `sent` is what the client saw."""

    def __init__(self, folder: Path) -> None:
        self.config: Config = load(str(prepare(folder).config))
        Path(self.config.state).mkdir()
        self.log = open_log(self.config.log)
        self.sent: list[Sent] = []
        self.watch = Watch(self.config, lambda: len(self.sent))
        self.policy = self.config.routes[ROUTE]
        self.fold = RouteFold(ROUTE, self.policy, self.watch.registry, self.log, Events())
        self.before, self.wrong, self.swapped = self.sent, list[Sent](), list[Sent]()
        self.at, self.told = 1000.0, 0
        self.event(EventKind.POLICY, policy=self.policy.model_dump(mode="json"))

    def close(self) -> None:
        self.log.close()
        self.watch.registry.close()

    def tell(self, *records: Evidence) -> None:
        kept = [Record(id=r.id, key=ROUTE, at=r.at, value=encode(r)) for r in records]
        self.log.append([(Stream.EVIDENCE, record) for record in kept])

    def event(self, kind: EventKind, version: str | None = None, **data: Any) -> None:
        self.told += 1
        self.tell(RouteEvent(id=f"e{self.told}", at=self.at, route=ROUTE, kind=kind, version=version, data=data))
        self.fold.advance()

    def arrive(self, version: str) -> None:
        self.watch.registry.add_version(
            Version(
                id=version, route=ROUTE, kind=TaskKind.CHAT, base="b", engine="local", artefact=version, created_at=1.0
            )
        )
        self.event(EventKind.CANDIDATE, version, gate="passed")
        self.event(EventKind.READY, version)

    def requests(self, until: Stage, *, of: str, by: str = "teacher", right: bool = True) -> None:
        """Requests that `by` answers, each with its pair, until the version `of` comes to a stage."""
        for _ in range(400):
            self.some(20, of=of, by=by, right=right)
            if self.watch.stage(of) is until:
                return
        raise AssertionError(f"{of} is {self.watch.stage(of)}, not {until}")

    def some(self, n: int, *, of: str, by: str = "teacher", right: bool = True) -> None:
        records = []
        for _ in range(n):
            self.at += 0.1
            self.told += 1
            seen = ((Metric.ERROR, 0.0, None), (Metric.LATENCY, 50.0, 600.0), (Metric.QUALITY, float(right), 1.0))
            records += [
                Observation(
                    id=f"o{self.told}:{metric}", at=self.at, route=ROUTE, version=of, metric=metric,
                    arm=Arm.TEACHER if by == "teacher" else Arm.STUDENT, propensity=1.0, value=value, pair_value=pair,
                )
                for metric, value, pair in seen
            ]  # fmt: skip
            self.send(by, right=right or by == "teacher")
        self.tell(*records)
        self.event(EventKind.TICK, requests={})
        moment = self.watch.look()
        assert moment is not None
        self.watch.moments.append(moment)

    def send(self, by: str, *, right: bool) -> None:
        self.sent.append(request(by, right=right, at=self.at, number=len(self.sent)))

    def learn(self) -> None:
        """A cycle that was registered."""
        phases = {
            f"evaluate_{name}": msgspec.to_builtins(report(agreement))
            for name, agreement in (("base", 0.0), ("student", 0.97), ("quantized", 0.965))
        }
        request = Request(cycle_id=STUDENT, route=ROUTE)
        self.watch.cycles.save(CycleState(request=request, policy={}, started_at=1.0, phases=phases))

    def outcome(self, *more: Sent, **changes: Any) -> Outcome:
        """What came of it; `more`: requests that the client also sent."""
        told = Told(
            sent=[*self.sent, *more], before_faults=self.before, swapped=self.swapped, while_wrong=[*self.wrong, *more]
        )
        made = build(self.watch, student=STUDENT, bad=BAD, twin=TWIN, told=told, replayed=True)
        changes = {"stopped_cleanly": True, "phases": {"start": 2.0, "retrain: train": 8.5}, "seconds": 11.0, **changes}
        return msgspec.structs.replace(made, **changes)


def request(by: str | None, *, right: bool = True, at: float = 2000.0, number: int = 0) -> Sent:
    """What the client saw of one request."""
    return Sent(
        number=number, at=at, served_by=by, right=right, valid_json=by is not None,
        milliseconds=600.0 if by == "teacher" else 50.0, prompt_tokens=100, completion_tokens=10,
        error=None if by else "503",
    )  # fmt: skip


def report(agreement: float) -> Report:
    return Report(
        n=1000, agreement=agreement, lower=agreement - 0.01, upper=agreement + 0.01, confidence=0.95, valid_json=0.999,
        leaked=0, unfinished=0, reasons={}, tokens=9000, seconds=90.0,
    )  # fmt: skip


def whole(folder: Path) -> Run:
    """All that the demo shows, as it should be."""
    run = Run(folder)
    run.learn()
    run.arrive(STUDENT)
    run.requests(Stage.CANARY, of=STUDENT)
    run.requests(Stage.LIVE, of=STUDENT, by=STUDENT)
    run.before = list(run.sent)
    run.arrive(BAD)
    run.requests(Stage.REJECTED, of=BAD, right=False)
    first = len(run.sent)
    run.arrive(TWIN)
    for version in (TWIN, STUDENT):
        run.event(EventKind.OPERATOR, version, action="promote", who="demo", why="a swap")
        assert run.watch.stage(version) is Stage.LIVE
        run.some(SWAPPED + 10, of=version, by=version)
    run.swapped = run.sent[first:]
    first = len(run.sent)
    run.requests(Stage.ROLLED_BACK, of=STUDENT, by=STUDENT, right=False)
    run.wrong = run.sent[first:]
    run.event(EventKind.OPERATOR, STUDENT, action="promote", who="demo", why="mended")
    assert run.watch.stage(STUDENT) is Stage.LIVE
    revision = run.watch.registry.snapshot().rollouts[ROUTE].revision
    run.event(EventKind.HARD_STOP, STUDENT, errors=10, window=20, revision=revision)
    return run
