"""Collector and promoter on Kafka, as their processes run them, through an outage."""

import asyncio
import json
import secrets
import time
from pathlib import Path

import pytest
from collector_fakes import answer, call, exchange, question
from kafka_broker import Broker

from collector import FrameSender, Happened, Stream, decode_interaction, open_log, promote, receive, socket_path
from router import (
    Arm,
    Config,
    EventKind,
    Events,
    RouteEvent,
    Stage,
    TaskKind,
    Version,
    decode_evidence,
    differences,
    open_registry,
    parse,
)

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("swept"),
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),
]


def config(folder: Path, log: str) -> Config:
    return parse(
        json.dumps(
            {
                "state": str(folder),
                "log": log,
                "kafka": {"timeout": "2s"},
                "upstreams": {"openai": {"base_url": "http://x", "distillation_allowed": True}},
                "engines": {"local": {}},
                "routes": {
                    "support": {
                        "teachers": ["openai/gpt-4o"],
                        "student": {},
                        "quality": {"score": "exact"},
                        "rollout": {"steps": [1.0], "min_dwell": "0s", "min_requests": 1},
                        "latency": {"block": "1s", "quantile": 0.9},
                    }
                },
            }
        ),
        {},
    )


def event(kind: EventKind, **data: object) -> Happened:
    one = RouteEvent(id=f"{kind}", at=time.time(), route="support", kind=kind, version="v", data=data)
    return Happened(event=one)


async def test_exchanges_become_decisions_and_an_outage_delays_them(broker: Broker, tmp_path: Path) -> None:
    settings = config(tmp_path / "state", broker.url(f"loop-{secrets.token_hex(4)}"))
    events, heard = Events(), list[tuple[str, dict[str, object]]]()
    events.subscribe(lambda name, fields: heard.append((name, fields)))
    registry = open_registry(settings.registry)
    registry.add_version(
        Version(id="v", route="support", kind=TaskKind.CHAT, base="b", engine="local", artefact="v", created_at=1.0)
    )
    stop = asyncio.Event()
    rooms = [
        asyncio.create_task(receive.run(settings, events=events, stop=stop)),
        asyncio.create_task(promote.run(settings, events=events, stop=stop)),
    ]
    sender = FrameSender(socket_path(settings.state), events=events)
    await sender.start()

    async def stage(wanted: Stage) -> None:
        while (await asyncio.to_thread(registry.version, "v")).stage is not wanted:
            for room in rooms:
                assert not room.done(), room
            await asyncio.sleep(0.1)

    def send(first: int, count: int) -> None:
        for n in range(first, first + count):
            asked, said = question(f"number {n}"), answer("yes")
            header = exchange(
                id=f"x{n}", at=time.time(), request=asked,
                served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, said, version="v")],
            )  # fmt: skip
            assert sender.send(header, asked, said, said)

    sender.send(event(EventKind.CANDIDATE, gate="passed"))
    sender.send(event(EventKind.READY))
    await stage(Stage.SHADOW)
    send(0, 40)
    assert await sender.drain(60) == 0
    broker.kill()
    send(40, 60)
    await asyncio.sleep(3.0)
    assert await sender.drain(0.1) > 0  # nothing is acknowledged that is not in the log
    broker.start()
    assert await sender.drain(90) == 0
    while not any(name == "log.lag" and fields["offsets"] == 0 for name, fields in reversed(heard[-50:])):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    stop.set()
    await sender.close()
    await asyncio.gather(*rooms)

    log = open_log(settings.log)
    texts = [decode_interaction(one.value).id for one in log.read(Stream.INTERACTIONS, 0, 1000, key="support")]
    assert sorted(texts) == sorted(f"x{n}" for n in range(100))
    entries = log.read(Stream.EVIDENCE, 0, 100_000, key="support")
    assert len({one.id for one in entries}) == len(entries)
    records = [(one.offset, decode_evidence(one.value)) for one in entries]
    decided = registry.transitions("support")
    assert decided
    offset = registry.checkpoint("support")[2]
    assert differences("support", [r for r in records if r[0] < offset], decided) == []
    assert any(name == "collector.log_failed" for name, _ in heard)
    log.close()
    registry.close()
