"""Frames become durable records: in order, once, whatever is killed or full meanwhile."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector_fakes import (
    MemoryLog,
    PlainPool,
    answer,
    call,
    decision,
    everything,
    exchange,
    question,
    sealing,
    stream,
)

from collector import (
    CollectorError,
    CollectorUnavailable,
    EventLog,
    Feedback,
    FrameSender,
    Happened,
    LogFull,
    Record,
    Stream,
    decode_interaction,
    open_log,
    send_now,
)
from collector.assemble import Assembler
from collector.judge import Judge
from collector.quality import Quality
from collector.receive import QUIET_SECONDS, Receiver, run
from collector.scrubbed import Pool, Scrubbed
from router import Arm, EventKind, Events, Observation, RouteEvent, decode_evidence, parse

CONFIG = parse(
    """
    upstreams: {openai: {base_url: "http://x", distillation_allowed: true, prices: {gpt-4o: {input: 2.5, output: 10}}}}
    engines: {local: {}}
    routes: {support: {teachers: [openai/gpt-4o], student: {}, quality: {score: exact}}}
    """,
    {},
)


class Heard(Events):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.subscribe(lambda name, fields: self.names.append(name))


class Running:
    """A collector on a socket, which can be stopped or dropped as by SIGKILL."""

    def __init__(
        self,
        path: Path,
        log: object,
        events: Events,
        max_waiting: int = 1 << 20,
        pool: Pool | None = None,
        listen_seconds: float = 0.1,
        assembler: Assembler | None = None,
    ) -> None:
        self.receiver = Receiver(
            assembler or Assembler(CONFIG, pool or PlainPool(), events, sealing=sealing()),
            log,  # type: ignore[arg-type]
            events,
            max_waiting=max_waiting,
            listen_seconds=listen_seconds,
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.receiver.serve(path, self.stop))

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 30)

    async def kill(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.sock"


@pytest.fixture
async def sender(path: Path) -> AsyncIterator[FrameSender]:
    made = FrameSender(path, events=Heard())
    await made.start()
    yield made
    await made.close()


async def listening(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.01)


def happened(name: str, kind: EventKind = EventKind.READY, route: str = "support") -> Happened:
    return Happened(event=RouteEvent(id=name, at=1.0, route=route, kind=kind, version="v1"))


def evidence(log: EventLog) -> list[str]:
    return [e.id for e in everything(log, Stream.EVIDENCE)]


@pytest.mark.parametrize(
    ("asked", "said", "spelt", "kept"),
    [
        ("hello", "yes", ["y", "es"], True),
        ("my SECRET", "yes", ["y", "es"], False),  # an alternative might be what was scrubbed
        ("hello", "a SECRET", ["a", " SECRET"], False),
        ("hello", "yes", ["y"], False),  # not the answer that is kept: a masked teacher's, for one
    ],
)
async def test_log_probabilities_are_kept_where_scrubbing_found_nothing(
    asked: str, said: str, spelt: list[str], kept: bool, path: Path, sender: FrameSender
) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    request, body = question(asked), json.loads(answer(said))
    body["choices"][0]["logprobs"] = {"content": [{"token": t, "logprob": -0.5, "top_logprobs": []} for t in spelt]}
    raw = json.dumps(body).encode()
    assert sender.send(exchange(request=request, served=call(Arm.TEACHER, raw)), request, raw)
    assert await sender.drain(10) == 0
    await running.end()
    (entry,) = everything(log, Stream.INTERACTIONS)
    assert [one.token for one in decode_interaction(entry.value).answers[0].logprobs] == (spelt if kept else [])


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("inline", [False, True])
async def test_thinking_is_kept_scrubbed_and_apart_from_the_answer_where_its_provider_permits_it(
    allowed: bool, inline: bool, path: Path, sender: FrameSender
) -> None:
    log, heard = MemoryLog(), Heard()
    openai = CONFIG.upstreams["openai"].model_copy(update={"reasoning_distillation_allowed": allowed})
    config = CONFIG.model_copy(update={"upstreams": {"openai": openai}})
    running = Running(path, log, heard, assembler=Assembler(config, PlainPool(), heard, sealing=sealing()))
    thought, own = "the SECRET is out", {"reasoning_content": "mine"}
    said = answer(f"<think>\n{thought}\n</think>\n\nyes") if inline else answer("yes", reasoning_content=thought)
    request, also = question(), answer("yes", **own)
    shadow = call(Arm.STUDENT, also)
    assert sender.send(exchange(request=request, served=call(Arm.TEACHER, said), shadows=[shadow]), request, said, also)
    assert await sender.drain(10) == 0
    await running.end()
    (entry,) = everything(log, Stream.INTERACTIONS)
    teacher, student = decode_interaction(entry.value).answers
    assert teacher.message == student.message == {"role": "assistant", "content": "yes"}
    assert teacher.reasoning == ("the hidden is out" if allowed else None)
    assert student.reasoning == "mine", "a student is the operator's own"
    quality = decode_evidence(everything(log, Stream.EVIDENCE)[-1].value)
    assert isinstance(quality, Observation)
    assert (quality.id, quality.value) == ("x0:quality:v1", 1.0), "scores see answers without it"


async def test_a_pair_becomes_an_interaction_and_observations(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    asked, said, also = question("my SECRET"), answer("yes"), stream("y", "es")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)])
    assert sender.send(header, asked, said, also)
    assert await sender.drain(10) == 0
    await running.end()
    (entry,) = everything(log, Stream.INTERACTIONS)
    kept = decode_interaction(entry.value)
    assert kept.request["messages"] == [{"role": "user", "content": "my hidden"}]
    teacher, student = kept.answers
    assert (teacher.message, teacher.cost_usd) == ({"role": "assistant", "content": "yes"}, pytest.approx(75e-6))
    assert (student.version, student.message) == ("v1", {"role": "assistant", "content": "yes"})
    assert evidence(log) == ["x0:error:v1", "x0:latency:v1", "x0:quality:v1"]
    quality = decode_evidence(everything(log, Stream.EVIDENCE)[-1].value)
    assert isinstance(quality, Observation)
    assert quality.value == 1.0


async def test_what_can_not_be_scrubbed_is_quarantined_without_text_and_still_observed(
    path: Path, sender: FrameSender, caplog: pytest.LogCaptureFixture
) -> None:
    log, heard = MemoryLog(), Heard()
    running = Running(path, log, heard)
    cases = [
        (question("POISON"), answer("x")),
        (b"no json", answer("x")),
        (question(), b"junk"),
        (question("UNFORESEEN"), answer("x")),
    ]
    for n, (asked, said) in enumerate(cases):
        also = answer("x")
        header = exchange(n, request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)])
        sender.send(header, asked, said, also)
    assert await sender.drain(10) == 0
    await running.end()
    assert everything(log, Stream.INTERACTIONS) == []
    kept = [msgspec.msgpack.decode(e.value) for e in everything(log, Stream.QUARANTINE)]
    assert [k["reason"] for k in kept] == ["poisoned", "request not JSON", "unreadable answer", "RuntimeError"]
    for word in ("POISON", "UNFORESEEN"):
        assert word not in repr(kept) + caplog.text
    assert "x0:quality:v1" in evidence(log)
    assert heard.names.count("collector.quarantined") == 4


async def test_an_exchange_that_must_not_be_kept_leaves_observations_alone(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    asked, said, also = question("private"), answer("x"), answer("x")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)], capture=False)
    sender.send(header, asked, said, also)
    sender.send(exchange(1, served=call(Arm.TEACHER), capture=False))
    assert await sender.drain(10) == 0
    await running.end()
    assert len(evidence(log)) == 3
    assert everything(log, Stream.INTERACTIONS) == everything(log, Stream.QUARANTINE) == []


async def test_frames_keep_their_order_and_ticks_carry_the_requests_before_them(
    path: Path, sender: FrameSender
) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    for n in range(50):
        asked, said = question("POISON" if n % 7 == 0 else "a"), answer()
        sender.send(exchange(n, request=asked, served=call(Arm.TEACHER, said)), asked, said)
        if n in (9, 29):
            sender.send(happened(f"tick{n}", EventKind.TICK))
        sender.send(happened(f"e{n}"))
    assert await sender.drain(10) == 0
    await running.end()
    assert [i for i in evidence(log) if i.startswith("e")] == [f"e{n}" for n in range(50)]
    found = [decode_evidence(e.value) for e in everything(log, Stream.EVIDENCE)]
    assert [r.data["requests"] for r in found if isinstance(r, RouteEvent) and r.kind is EventKind.TICK] == [
        {"2": 10},
        {"2": 20},
    ]


class SlowPool(PlainPool):
    """Scrubs nothing before it is let."""

    def __init__(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def scrub(self, values: list[Any], **more: Any) -> Scrubbed:
        self.asked.set()
        await self.let.wait()
        return await super().scrub(values, **more)


async def test_evidence_and_commands_do_not_wait_for_scrubbing(path: Path, sender: FrameSender) -> None:
    log, pool = MemoryLog(), SlowPool()
    running = Running(path, log, Heard(), pool=pool)
    asked, said, also = question(), answer("yes"), answer("yes")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)])
    sender.send(header, asked, said, also)
    sender.send(happened("hard stop"))
    while len(evidence(log)) < 4:  # noqa: ASYNC110 - a log tells nobody
        await asyncio.sleep(0.01)
    await asyncio.to_thread(send_now, path, [happened("rollback")])
    assert evidence(log) == ["x0:error:v1", "x0:latency:v1", "x0:quality:v1", "hard stop", "rollback"]
    assert await sender.drain(0.05) == 2, "acknowledged before its texts are durable"
    pool.let.set()
    assert await sender.drain(10) == 0
    await running.end()
    assert len(everything(log, Stream.INTERACTIONS)) == 1


JUDGED = parse(
    """
    upstreams: {openai: {base_url: "http://x", api_key: sk-judge, distillation_allowed: true}}
    engines: {local: {}}
    routes:
      support:
        teachers: [openai/gpt-4o]
        student: {}
        quality: {reference: judge, judge: {route: judge}}
        outcomes: {window: 100s}
      judge: {teachers: [openai/gpt-4o], capture: {rate: 0}}
    """,
    {},
)


async def test_a_judged_pair_comes_when_it_is_judged_and_holds_back_its_acknowledgement_alone(
    path: Path, sender: FrameSender
) -> None:
    log, heard, let = MemoryLog(), Heard(), asyncio.Event()

    async def ask(route: str, messages: Sequence[Mapping[str, str]]) -> str:
        await let.wait()
        return '{"verdict": "tie"}'

    assembler = Assembler(JUDGED, PlainPool(), heard, sealing=sealing(), quality=Quality(heard, judge=Judge(ask)))
    running = Running(path, log, heard, assembler=assembler)
    asked, said, also = question(), answer("yes"), answer("no")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)])
    sender.send(header, asked, said, also)
    sender.send(happened("rollback"))
    while len(evidence(log)) < 3 or not everything(log, Stream.INTERACTIONS):  # noqa: ASYNC110 - a log tells nobody
        await asyncio.sleep(0.01)
    assert evidence(log) == ["x0:error:v1", "x0:latency:v1", "rollback"]
    assert await sender.drain(0.05) == 2, "acknowledged before the pair is judged"
    let.set()
    assert await sender.drain(10) == 0
    await running.end()
    assert evidence(log)[-1] == "x0:quality:v1"


async def test_what_is_due_is_appended_though_no_frame_comes(
    path: Path, sender: FrameSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.receive.DUE_SECONDS", 0.01)
    log, now = MemoryLog(), [1000.0]
    running = Running(
        path, log, Heard(), assembler=Assembler(JUDGED, PlainPool(), Heard(), sealing=sealing(), clock=lambda: now[0])
    )
    sender.send(exchange(1, served=call(Arm.TEACHER), decision=decision(in_service="v1"), capture=False))
    sender.send(Feedback(id="f", at=1001.0, route="support", request_id="x1", outcome=1.0))
    assert await sender.drain(10) == 0
    now[0] = 2000.0
    while len(evidence(log)) < 2:  # noqa: ASYNC110 - a log tells nobody
        await asyncio.sleep(0.01)
    await running.end()
    assert evidence(log) == ["exposure:v1:c1", "outcome:v1:c1"]
    outcome = decode_evidence(everything(log, Stream.EVIDENCE)[-1].value)
    assert isinstance(outcome, Observation)
    assert outcome.value == 1.0


async def test_a_deferred_stream_is_kept_with_the_answer_that_the_teacher_gave(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    asked, said = question(), stream("yes")
    deferred = call(Arm.STUDENT, confidence=0.2, deferred=True, total_ms=None)
    decided = decision(arm=Arm.STUDENT, version="v1", propensity=0.25)
    header = exchange(
        request=asked, served=call(Arm.TEACHER, said), shadows=[deferred], decision=decided, stream=True, ttft_ms=20.0
    )
    sender.send(header, asked, said)
    assert await sender.drain(10) == 0
    await running.end()
    kept = decode_interaction(everything(log, Stream.INTERACTIONS)[0].value)
    assert [(a.arm, a.deferred, a.message is None) for a in kept.answers] == [
        (Arm.TEACHER, False, False), (Arm.STUDENT, True, True)
    ]  # fmt: skip
    assert evidence(log) == ["x0:error:v1", "x0:ttft:v1"]


async def test_a_request_nested_without_end_is_quarantined_and_still_observed(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    asked, said, also = b'{"a":' * 50_000, answer("x"), answer("x")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)])
    sender.send(header, asked, said, also)
    assert await sender.drain(10) == 0
    await running.end()
    assert "x0:quality:v1" in evidence(log)
    assert len(everything(log, Stream.QUARANTINE)) == 1


async def test_stopping_waits_for_scrubbing_that_goes_on(
    path: Path, sender: FrameSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.receive.GIVE_UP_SECONDS", 0.9)
    log, pool = MemoryLog(), SlowPool()
    running = Running(path, log, Heard(), pool=pool)
    for n in range(3):
        asked, said = question(), answer()
        sender.send(exchange(n, request=asked, served=call(Arm.TEACHER, said)), asked, said)
    draining = asyncio.create_task(sender.drain(5.0))
    await pool.asked.wait()
    running.stop.set()
    await asyncio.sleep(0.5)
    pool.let.set()
    await asyncio.wait_for(running.task, 10)
    assert await draining == 0
    assert len(everything(log, Stream.INTERACTIONS)) == 3


async def test_a_stop_takes_what_connected_senders_still_send_and_ends_when_they_leave(
    path: Path, sender: FrameSender
) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard(), listen_seconds=60)
    sender.send(happened("before"))
    assert await sender.drain(10) == 0
    running.stop.set()
    await asyncio.sleep(3 * QUIET_SECONDS)
    sender.send(happened("after"))  # of a request that was in flight
    assert await sender.drain(10) == 0
    await asyncio.to_thread(send_now, path, [happened("command")])  # nor is an operator turned away meanwhile
    await sender.close()
    await asyncio.wait_for(running.task, 10)
    assert evidence(log) == ["before", "after", "command"]


async def test_a_stop_that_comes_before_it_listens_still_takes_what_waits_for_it(
    path: Path, sender: FrameSender
) -> None:
    sender.send(happened("waiting"))
    await asyncio.sleep(0.5)  # the next try is a good while away
    log = MemoryLog()
    running = Running(path, log, Heard())
    running.stop.set()
    await asyncio.wait_for(running.task, 10)
    assert evidence(log) == ["waiting"]


async def test_a_stop_under_traffic_comes_to_its_end_and_what_it_did_not_take_is_sent_again(
    path: Path, sender: FrameSender
) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard(), listen_seconds=0.5)
    sent = itertools.count()
    traffic = asyncio.create_task(keep_sending(sender, sent))
    await asyncio.sleep(0.2)
    await running.end()
    taken = len(evidence(log))
    traffic.cancel()
    again = Running(path, log, Heard())
    assert await sender.drain(10) == 0
    await again.end()
    assert evidence(log) == [f"e{n}" for n in range(next(sent))]
    assert 0 < taken < len(evidence(log))


async def keep_sending(sender: FrameSender, numbers: Iterator[int]) -> None:
    while True:
        sender.send(happened(f"e{next(numbers)}"))
        await asyncio.sleep(0.01)


async def test_after_a_fallback_the_decided_arm_stands_beside_the_propensity(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    asked, said = question(), answer("yes")
    decided = decision(arm=Arm.STUDENT, version="v1", propensity=0.25)
    failed = call(Arm.STUDENT, status=500, error="http_500")
    header = exchange(request=asked, served=call(Arm.TEACHER, said), failed=[failed], decision=decided)
    sender.send(header, asked, said)
    assert await sender.drain(10) == 0
    await running.end()
    kept = decode_interaction(everything(log, Stream.INTERACTIONS)[0].value)
    assert (kept.arm, kept.version, kept.propensity) == (Arm.STUDENT, "v1", 0.25)
    assert kept.answers[0].arm is Arm.TEACHER
    assert [(a.arm, a.version, a.error) for a in kept.failed] == [(Arm.STUDENT, "v1", "http_500")]


async def test_a_collector_killed_and_started_again_loses_and_doubles_nothing(
    path: Path, sender: FrameSender, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    sent = 0
    for _ in range(4):
        log = open_log(url)
        running = Running(path, log, Heard())
        for _ in range(150):
            sender.send(happened(f"e{sent}"))
            sent += 1
            if sent % 40 == 0:
                await asyncio.sleep(0.02)
        await running.kill()
        log.close()
    log = open_log(url)
    running = Running(path, log, Heard())
    assert await sender.drain(20) == 0
    await running.end()
    assert evidence(log) == [f"e{n}" for n in range(sent)]
    log.close()


async def test_a_collector_for_meanings_without_the_encoder_says_so_before_it_takes_anything(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"state": str(tmp_path), "log": "memory://"})
    quality = config.routes["support"].quality.model_copy(update={"score": "embedding"})
    route = config.routes["support"].model_copy(update={"quality": quality})
    config = config.model_copy(update={"routes": {"support": route}})
    with pytest.raises(CollectorError, match="holds no encoder; start with `retort up`"):
        await run(config, events=Heard(), stop=asyncio.Event())
    assert not (tmp_path / "run" / "collector.sock").exists()


class SometimesFull(MemoryLog):
    """A disk that is full for the first tries."""

    tries = 3

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        if records and self.tries:
            self.tries -= 1
            raise LogFull
        super().append(records)


async def test_a_full_log_holds_frames_back_and_takes_them_when_there_is_space(
    path: Path, sender: FrameSender, caplog: pytest.LogCaptureFixture
) -> None:
    log, heard = SometimesFull(), Heard()
    running = Running(path, log, heard)
    sender.send(happened("a"))
    assert await sender.drain(0.1) == 1
    assert await sender.drain(10) == 0
    await running.end()
    assert evidence(log) == ["a"]
    assert heard.names.count("collector.log_full") == 3
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["collector.log_full"]


async def test_more_than_the_collector_may_hold_waits_in_the_socket_and_arrives(
    path: Path, sender: FrameSender
) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard(), max_waiting=2000)
    for n in range(40):
        asked, said = question("a" * 700), answer("b" * 700)
        sender.send(exchange(n, request=asked, served=call(Arm.TEACHER, said)), asked, said)
    assert await sender.drain(20) == 0
    await running.end()
    assert len(everything(log, Stream.INTERACTIONS)) == 40


async def test_a_senders_buffer_is_bounded_and_what_it_drops_is_counted(path: Path) -> None:
    heard = Heard()
    sender = FrameSender(path, events=heard, max_bytes=2000)
    await sender.start()
    taken = [sender.send(happened(f"e{n}"), b"x" * 300) for n in range(20)]
    assert 0 < sum(taken) < 20
    assert heard.names.count("collector.frames_dropped") == 20 - sum(taken)
    await sender.close()


async def test_a_command_waits_for_durability_and_says_when_nobody_answers(path: Path) -> None:
    with pytest.raises(CollectorUnavailable, match="no collector answers"):
        await asyncio.to_thread(send_now, path, [happened("a")])
    log = MemoryLog()
    running = Running(path, log, Heard())
    await listening(path)
    await asyncio.to_thread(send_now, path, [happened("a"), happened("b")])
    assert evidence(log) == ["a", "b"]
    await running.end()
    assert not path.exists()


async def test_a_sender_whose_frames_are_refused_comes_again_ever_more_seldom(path: Path, sender: FrameSender) -> None:
    connections = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_unix_server(refuse, str(path)):
        sender.send(happened("a"))
        await asyncio.sleep(1.5)
    assert 1 < connections < 10  # 0, 0.05, 0.15, 0.35, 0.75, 1.55 s


async def test_bytes_that_are_no_frame_end_that_connection_alone(path: Path, sender: FrameSender) -> None:
    log = MemoryLog()
    running = Running(path, log, Heard())
    await listening(path)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"\xff" * 64)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    sender.send(happened("a"))
    assert await sender.drain(10) == 0
    await running.end()
    assert evidence(log) == ["a"]


async def test_more_than_can_be_scrubbed_is_sampled_pairs_last_and_observations_never(
    path: Path, sender: FrameSender
) -> None:
    log, heard, pool = MemoryLog(), Heard(), SlowPool()
    config = CONFIG.model_copy(update={"scrub_backlog_mb": 1})
    assembler = Assembler(config, pool, heard, sealing=sealing())
    running = Running(path, log, heard, assembler=assembler, max_waiting=64 << 20)
    asked, said = question("x" * 100_000), answer("red")
    for n in range(10):
        sender.send(exchange(n, request=asked, served=call(Arm.TEACHER, said)), asked, said)
    for n in range(10, 20):
        served, shadow = call(Arm.TEACHER, said), call(Arm.STUDENT, said)
        sender.send(exchange(n, request=asked, served=served, shadows=[shadow]), asked, said, said)
    async with asyncio.timeout(10):
        while len({e.id.partition(":")[0] for e in everything(log, Stream.EVIDENCE)}) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pool.let.set()
    assert await sender.drain(30) == 0
    await running.end()
    kept = {e.id for e in everything(log, Stream.INTERACTIONS)}
    assert kept == {f"x{n}" for n in [*range(5), *range(10, 15)]}
    assert heard.names.count("collector.capture_shed") == 10
    observed = {e.id.partition(":")[0] for e in everything(log, Stream.EVIDENCE)}
    assert observed == {f"x{n}" for n in range(10, 20)}
