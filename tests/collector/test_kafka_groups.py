"""Groups on Kafka: whatever members do, each entry comes to one of them, and what comes twice changes no decision."""

import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress

import pytest
from kafka_broker import Broker

from collector import Entry, LogError, Record, Stream, open_log
from collector.log_kafka_group import GroupMember
from router import (
    Arm,
    EventKind,
    Evidence,
    Metric,
    Observation,
    RouteEvent,
    RoutePolicy,
    Transition,
    decode_evidence,
    encode_evidence,
    recompute,
)

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

ROUTES = ("a", "b", "c", "d", "e")
POLICY = RoutePolicy.model_validate(
    {
        "teachers": ["o/m"],
        "student": {},
        "rollout": {"steps": [0.5, 1.0], "min_dwell": "0s", "min_requests": 1},
        "latency": {"block": "1s", "quantile": 0.9},
    }
)


def story(route: str, seed: int) -> list[Evidence]:
    """A version's way as evidence: into shadow, then pairs of which few are wrong, with a tick after every twenty."""
    dice, at, made = random.Random(seed), 0.0, list[Evidence]()

    def event(kind: EventKind, **data: object) -> RouteEvent:
        return RouteEvent(id=f"{route}:e{len(made)}", at=at, route=route, kind=kind, version="v", data=data)

    made.append(event(EventKind.POLICY, policy=POLICY.model_dump(mode="json")))
    made.append(event(EventKind.CANDIDATE, gate="passed"))
    made.append(event(EventKind.READY))
    for number in range(400):
        at += 1.0
        right = float(dice.random() > 0.02)
        for metric, value, pair in ((Metric.LATENCY, 10.0 + dice.random(), 50.0), (Metric.QUALITY, right, 1.0)):
            made.append(
                Observation(
                    id=f"{route}:o{number}:{metric}", at=at, route=route, version="v", metric=metric,
                    arm=Arm.TEACHER, propensity=1.0, value=value, pair_value=pair,
                )
            )  # fmt: skip
        if number % 20 == 19:
            made.append(event(EventKind.TICK))
    return made


def decisions(route: str, entries: list[Entry]) -> list[Transition]:
    return recompute(route, ((one.offset, decode_evidence(one.value)) for one in entries))


class Member(threading.Thread):
    """Reads until it is told to leave; `careless`: it commits seldom, and not what it read last."""

    def __init__(self, url: str, got: list[Entry], *, careless: bool) -> None:
        super().__init__(daemon=True)
        self.url, self.got, self.careless = url, got, careless
        self.leave = threading.Event()

    def run(self) -> None:
        log = open_log(self.url)
        member = log.consumer(Stream.EVIDENCE, group="g")
        polls = 0
        while not self.leave.is_set():
            self.got += member.poll(40, seconds=0.2)
            polls += 1
            if not self.careless or polls % 10 == 0:
                with suppress(LogError):  # its topics went to others, who get them again
                    member.commit()
        member.close()
        log.close()


def test_members_that_come_and_go_amid_the_evidence_change_no_decision(broker: Broker) -> None:
    url, dice = broker.url(f"group-{secrets.token_hex(4)}"), random.Random(3)
    log = open_log(url, appender="c")
    told = {route: story(route, seed) for seed, route in enumerate(ROUTES)}
    got: list[Entry] = []
    members: list[Member] = []
    for step in range(12):
        for route, records in told.items():
            part = records[step * len(records) // 12 : (step + 1) * len(records) // 12]
            log.append([
                (Stream.EVIDENCE, Record(id=one.id, key=route, at=one.at, value=encode_evidence(one))) for one in part
            ])  # fmt: skip
        members.append(Member(url, got, careless=step % 2 == 0))
        members[-1].start()
        if len(members) > 3:
            members.pop(dice.randrange(len(members))).leave.set()
        time.sleep(dice.random())
    deadline = time.monotonic() + 90
    while len({(one.key, one.offset) for one in list(got)}) < sum(map(len, told.values())):
        assert time.monotonic() < deadline, Counter(one.key for one in got)
        time.sleep(0.1)
    for member in members:
        member.leave.set()
        member.join(30)

    assert len(got) > sum(map(len, told.values()))  # some came twice, as they may
    found: dict[str, dict[int, Entry]] = defaultdict(dict)
    for one in got:
        found[one.key][one.offset] = one
    for route in ROUTES:
        alone = log.read(Stream.EVIDENCE, 0, 100_000, key=route)
        assert [one.id for one in alone] == [one.id for one in told[route]]
        shared = [found[route][offset] for offset in sorted(found[route])]
        assert shared == alone
        made = decisions(route, alone)
        assert len(made) >= 2
        assert decisions(route, shared) == made == decisions(route, [*alone])
    log.close()


def test_a_member_knows_how_far_behind_it_is(broker: Broker) -> None:
    log = open_log(broker.url(f"lag-{secrets.token_hex(4)}"), appender="c")
    log.append([(Stream.EVIDENCE, Record(id=str(i), key="r", at=1.0, value=b"")) for i in range(30)])
    member = log.consumer(Stream.EVIDENCE, group="g")
    assert len(member.poll(10, seconds=30)) == 10
    assert member.lag() == {"r": 21}  # and the mark of the transaction
    while member.lag() != {"r": 0}:
        member.poll(seconds=0.1)
    member.close()
    log.close()


def test_a_member_that_fell_out_of_its_group_joins_again_and_one_without_work_stays(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.log_kafka_group.LOST_SECONDS", 3.0)
    log = open_log(broker.url(f"lost-{secrets.token_hex(4)}"), appender="c")
    log.append([(Stream.EVIDENCE, Record(id="a", key="r", at=1.0, value=b""))])
    first = log.consumer(Stream.EVIDENCE, group="g")
    assert isinstance(first, GroupMember)
    assert len(first.poll(seconds=30)) == 1
    first.commit()
    first._consumer.unsubscribe()  # as kafka-python's consumer is when it has fallen out: in no group, given nothing
    log.append([(Stream.EVIDENCE, Record(id="b", key="r", at=1.0, value=b""))])
    got: list[Entry] = []
    while not got:
        got = first.poll(seconds=0.5)
    assert [one.id for one in got] == ["b"]

    idle = log.consumer(Stream.EVIDENCE, group="g")
    assert isinstance(idle, GroupMember)
    both = (first, idle)
    kept = [member._consumer for member in both]
    for member in both * 30:
        member.poll(seconds=0.2)
    while sum(bool(member._consumer.assignment()) for member in both) != 1:  # the broker is dealing the topics anew
        for member in both:
            member.poll(seconds=0.2)
    assert [member._consumer for member in both] == kept
    first.close()
    idle.close()
    log.close()
