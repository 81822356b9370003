"""A right answer that a client reports is kept, scrubbed, beside the record of its request, and nowhere else."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector_fakes import MemoryLog, PlainPool, answer, call, everything, exchange, question
from test_collector_receive import Running, SlowPool

from collector import (
    Entry,
    Feedback,
    FrameSender,
    Interactions,
    LogError,
    LogFull,
    Record,
    RightAnswer,
    Stream,
    open_subjects,
)
from collector.assemble import Assembler
from collector.feedback import EARLY_SECONDS
from collector.outcomes import Outcomes
from collector.record import sealed
from collector.scrubbed import Pool, Scrubbed
from collector.sealing import Sealing
from router import Arm, Events, parse

CONFIG = parse(
    """
    upstreams: {openai: {base_url: "http://x", distillation_allowed: true}}
    engines: {local: {}}
    routes:
      support: {teachers: [openai/gpt-4o], student: {}, quality: {score: exact}, outcomes: {window: 100s}}
      silent: {teachers: [openai/gpt-4o], capture: {right_answers: false}}
    """,
    {},
)


class Desk:
    """A collector on a socket, which one sender talks to."""

    def __init__(self, folder: Path, log: MemoryLog, pool: Pool) -> None:
        self.log, self.path, self.now = log, folder / "c.sock", 1000.0
        self.results: Counter[str] = Counter()
        self.events = Events()
        self.events.subscribe(self._hear)
        self.keys = open_subjects("sqlite:///:memory:")
        self.interactions = Interactions(log, self.keys)
        sealing = Sealing(self.keys, self.events)
        assembler = Assembler(
            CONFIG, pool, self.events, sealing=sealing, interactions=self.interactions, clock=lambda: self.now
        )
        self.running = Running(self.path, log, self.events, assembler=assembler)
        self.sender = FrameSender(self.path, events=self.events)

    def _hear(self, name: str, fields: dict[str, Any]) -> None:
        if name == "collector.feedback":
            self.results[f"{fields['kind']} {fields['result']}"] += 1
        elif name == "collector.log_full":
            self.results["log full"] += 1

    def exchange(self, number: int = 0, text: str = "q", **changes: Any) -> None:
        asked, said = question(text), answer("wrong SECRET")
        made = exchange(number, request=asked, served=call(Arm.TEACHER, said), **changes)
        assert self.sender.send(made, asked, said)

    def report(self, number: int, text: str, *, name: str = "fb_1", **changes: Any) -> None:
        fields = {"at": 2000.0, "route": "support", "capture": True, **changes}
        body = text.encode()
        made = Feedback(id=name, request_id=f"x{number}", truth_bytes=len(body), **fields)
        assert self.sender.send(made, body)

    async def done(self) -> None:
        assert await self.sender.drain(10) == 0

    def kept(self) -> list[RightAnswer]:
        return [right for _, right in self.interactions.right_answers("support")]

    @property
    def feedback(self) -> list[Entry]:
        return everything(self.log, Stream.FEEDBACK)


class Failing(MemoryLog):
    """A log that can't be searched, or appended to, for a while."""

    failures = 0
    full = False

    def append(self, records: Sequence[tuple[Stream, Record]]) -> None:
        if self.full:
            raise LogFull
        super().append(records)

    def find(self, stream: Stream, name: str, *, key: str) -> Entry | None:
        if self.failures:
            self.failures -= 1
            raise LogError("away")
        return super().find(stream, name, key=key)


@pytest.fixture
def pool() -> Pool:
    return PlainPool()


@pytest.fixture
async def desk(tmp_path: Path, pool: Pool) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, Failing(), pool)
    await made.sender.start()
    with closing(made.log), closing(made.keys):
        yield made
        await made.sender.close()
        await made.running.end()


async def test_it_is_scrubbed_and_read_back_with_its_request(desk: Desk) -> None:
    desk.exchange()
    await desk.done()
    desk.report(0, "the SECRET is right", outcome=0.0)
    await desk.done()
    desk.report(0, '{"role": "assistant", "content": "whole"}', name="fb_2")
    await desk.done()
    desk.report(0, "the SECRET is right", outcome=0.0)  # again, by a sender that was not told
    await desk.done()
    first, second = desk.kept()
    assert (first.request_id, first.at) == ("x0", 2000.0)
    assert first.message == {"role": "assistant", "content": "the hidden is right"}
    assert second.message == {"role": "assistant", "content": "whole"}
    assert [entry.id for entry in desk.feedback] == ["fb_1", "fb_1:answer", "fb_2:answer"]
    assert not any(b"SECRET" in entry.value for entry in desk.feedback)
    assert everything(desk.log, Stream.QUARANTINE) == []


async def test_who_reads_outcomes_passes_it_over_and_no_evidence_is_made_of_it(desk: Desk) -> None:
    desk.exchange()
    await desk.done()
    before = everything(desk.log, Stream.EVIDENCE)
    desk.report(0, "right")
    await desk.done()
    (kept,) = desk.feedback
    old = msgspec.msgpack.decode(kept.value, type=Feedback)
    assert (old.request_id, old.outcome, old.truth_bytes) == ("x0", None, 0)
    Outcomes(CONFIG.routes, Events()).restore(desk.log, 2000.0)
    assert everything(desk.log, Stream.EVIDENCE) == before
    assert len(list(desk.interactions.of("support"))) == 1


async def test_it_is_sealed_with_its_subjects_key_and_goes_with_her(desk: Desk) -> None:
    desk.exchange(0, subject="jane")
    desk.exchange(1)
    await desk.done()
    desk.report(0, "hers")
    desk.report(1, "POISON", name="fb_2")
    desk.report(1, "nobody's", name="fb_3")
    await desk.done()
    jane = desk.keys.hashed("jane")
    hers, nobodys = sorted(desk.feedback, key=lambda entry: entry.id)
    answers = [msgspec.msgpack.decode(entry.value)["answer"] for entry in (hers, nobodys)]
    assert [(entry.subject, sealed(data)) for entry, data in zip((hers, nobodys), answers, strict=True)] == [
        (jane, True), ("", False),
    ]  # fmt: skip
    desk.keys.destroy(jane)
    assert [right.message["content"] for right in desk.kept()] == ["nobody's"]
    assert [entry.id for entry in desk.log.erase(Stream.FEEDBACK, subject=jane)] == ["fb_1:answer"]
    assert [entry.id for entry in desk.feedback] == ["fb_3:answer"]
    desk.log.erase(Stream.INTERACTIONS, subject=jane)
    desk.report(0, "hers, once more", name="fb_4")
    await desk.done()
    assert len(desk.feedback) == 1


@pytest.mark.parametrize("poison", ["POISON", "UNFORESEEN"])
async def test_what_can_not_be_scrubbed_is_put_aside_without_its_text(desk: Desk, poison: str) -> None:
    desk.exchange(subject="jane")
    await desk.done()
    desk.report(0, f"this is {poison}")
    await desk.done()
    assert desk.feedback == []
    (aside,) = everything(desk.log, Stream.QUARANTINE)
    assert (aside.id, aside.key, aside.at, aside.subject) == ("fb_1", "support", 2000.0, desk.keys.hashed("jane"))
    assert poison.encode() not in aside.value
    assert set(msgspec.msgpack.decode(aside.value)) == {"reason", "feedback"}
    assert desk.results == {"right_answer quarantined": 1}


async def test_none_is_kept_without_the_record_of_its_request_or_against_a_word(desk: Desk) -> None:
    desk.exchange(0, capture=False)
    desk.exchange(1, "POISON")
    desk.exchange(2)
    await desk.done()
    desk.report(0, "of what is not kept")
    desk.report(1, "of what is in quarantine")
    desk.report(2, "against the client's word", capture=False)
    desk.report(2, "on a route that keeps none", route="silent")
    desk.report(9, "of nothing")
    await desk.done()
    assert desk.feedback == []
    assert desk.results == {"truth not_wanted": 1}
    desk.now += EARLY_SECONDS + 1
    while desk.results["right_answer unknown"] < 3:  # noqa: ASYNC110 - a clock tells nobody
        await asyncio.sleep(0.05)
    desk.exchange(9)
    await desk.done()
    assert desk.feedback == [], "too early"


async def test_one_that_comes_before_its_exchange_waits_for_it_and_the_last_one_counts(desk: Desk) -> None:
    desk.report(0, "first")
    desk.report(0, "last", name="fb_2")
    desk.report(0, "of before", name="fb_0", at=1999.0)
    await desk.done()
    assert desk.feedback == []
    desk.exchange(0)
    await desk.done()
    assert [right.message["content"] for right in desk.kept()] == ["last"]
    desk.exchange(0)  # again, by a sender that was not told
    await desk.done()
    assert len(desk.kept()) == 1


@pytest.mark.parametrize("pool", [SlowPool()])
async def test_one_that_comes_while_its_exchange_is_scrubbed_waits_and_is_not_acknowledged_before(
    desk: Desk, pool: SlowPool
) -> None:
    desk.exchange(0)
    desk.exchange(1, "POISON")
    desk.report(0, "right")
    desk.report(1, "never", name="fb_2")
    await asyncio.wait_for(pool.asked.wait(), 10)
    assert await desk.sender.drain(0.05) == 4
    pool.let.set()
    await desk.done()
    assert [right.message["content"] for right in desk.kept()] == ["right"]
    assert desk.results == {"right_answer kept": 1, "right_answer unknown": 1}


async def test_while_the_log_can_not_be_read_nothing_is_lost(desk: Desk) -> None:
    desk.exchange()
    await desk.done()
    assert isinstance(desk.log, Failing)
    desk.log.failures = 2
    desk.report(0, "right")
    await desk.done()
    assert desk.log.failures == 0
    assert [right.message["content"] for right in desk.kept()] == ["right"]


async def test_one_that_comes_before_the_record_of_its_request_is_in_the_log_finds_it_there(desk: Desk) -> None:
    assert isinstance(desk.log, Failing)
    desk.log.full = True
    desk.exchange()
    while desk.results["log full"] < 2:  # noqa: ASYNC110 - its record is made, and waits for room
        await asyncio.sleep(0.05)
    desk.report(0, "right")
    await asyncio.sleep(0.2)
    desk.log.full = False
    await desk.done()
    assert [right.message["content"] for right in desk.kept()] == ["right"]


class Noting(PlainPool):
    """Notes beside what it scrubs."""

    def __init__(self) -> None:
        self.noted: list[tuple[list[Any], dict[str, Any]]] = []

    async def scrub(self, values: list[Any], **more: Any) -> Scrubbed:
        self.noted.append((values, more))
        made = await super().scrub(values, **more)
        return msgspec.structs.replace(made, drawn={"thing": 3})


@pytest.mark.parametrize("pool", [Noting()])
async def test_it_is_scrubbed_as_a_part_of_its_conversation(desk: Desk, pool: Noting) -> None:
    desk.exchange(0, cluster="talk")
    await desk.done()
    desk.report(0, "right")
    await desk.done()
    (_, asked), (values, more) = pool.noted
    (record,) = [record for _, record in desk.interactions.of("support")]
    assert values == [{"role": "assistant", "content": "right"}]
    assert (more["route"], more["cluster"]) == (asked["route"], asked["cluster"]) == ("support", "talk")
    assert more["untouchable"] >= {"gpt-4o", "support"}
    assert more["beside"].values == (record.request, record.answers[0].message)
    assert more["beside"].drawn == record.drawn == {"thing": 3}
