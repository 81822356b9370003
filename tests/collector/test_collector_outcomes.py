"""Outcomes and right answers: who is exposed, what counts, what a restart finds again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from collector_fakes import MemoryLog, PlainPool, answer, call, decision, everything, exchange, question, sealing

from collector import CollectorError, EventLog, Feedback, Header, Stream, open_log
from collector.assemble import Assembler
from collector.embedding import Vectors
from collector.feedback import EARLY_SECONDS
from collector.outcomes import PAGE, Outcomes
from collector.quality import Quality
from collector.truth import Truths
from router import Arm, Events, Metric, Observation, decode_evidence, encode_evidence, parse

CONFIG = parse(
    """
    upstreams: {openai: {base_url: "http://x", distillation_allowed: true}}
    engines: {local: {}}
    routes:
      support: {teachers: [openai/gpt-4o], student: {}, outcomes: {window: 100s}}
      labelled: {teachers: [openai/gpt-4o], student: {}, quality: {score: exact, reference: truth, truth_within: 60s}}
      alike: {teachers: [openai/gpt-4o], student: {}, quality: {score: embedding, reference: truth}}
      plain: {teachers: [openai/gpt-4o], student: {}}
    """,
    {},
)


class Desk:
    """An assembler with a clock that stands, and the log that it fills."""

    def __init__(self, log: EventLog | None = None, quality: Quality | None = None) -> None:
        self.now = 1000.0
        self.told: list[dict[str, Any]] = []
        self.lost: list[str] = []
        events = Events()
        events.subscribe(self._hear)
        self.assembler = Assembler(
            CONFIG, PlainPool(), events, sealing=sealing(), quality=quality or Quality(events), clock=lambda: self.now
        )
        self.log = log or MemoryLog()
        self.assembler.restore(self.log)

    def _hear(self, name: str, fields: dict[str, Any]) -> None:
        if name == "collector.feedback":
            self.told.append(fields)
        elif name == "collector.pair_lost":
            self.lost.append(fields["reason"])

    async def take(self, header: Header, body: bytes = b"") -> None:
        made = self.assembler.begin(header, body)
        self.log.append(made.now)
        for later in made.later:
            self.log.append(await later)

    def later(self, now: float) -> None:
        self.now = now
        self.log.append(self.assembler.due())

    def seen(self, *metrics: Metric) -> list[Observation]:
        found = [decode_evidence(e.value) for e in everything(self.log, Stream.EVIDENCE)]
        return [r for r in found if isinstance(r, Observation) and r.metric in metrics]

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(fields["kind"], fields["result"]) for fields in self.told]


def asked(number: int, *, cluster: str = "c", at: float = 1000.0, **decided: Any) -> Header:
    made: dict[str, Any] = {"in_service": "v1", "propensity": 0.75, **decided}
    return exchange(number, served=call(Arm.TEACHER), cluster=cluster, at=at, capture=False, decision=decision(**made))


def thumb(
    number: int, outcome: float | None = None, *, at: float = 1010.0, route: str = "support", **more: Any
) -> Feedback:
    return Feedback(
        id=f"f{number}:{outcome}:{at}", at=at, route=route, request_id=f"x{number}", outcome=outcome, **more
    )


async def test_a_conversation_is_exposed_once_with_the_arm_and_propensity_of_its_first_request() -> None:
    desk = Desk()
    await desk.take(asked(1, arm=Arm.STUDENT, version="v1", propensity=0.25))
    await desk.take(asked(2, at=1001.0))
    await desk.take(asked(3, cluster="other", at=1002.0))
    first, second = desk.seen(Metric.EXPOSURE)
    assert (first.id, first.arm, first.version, first.propensity) == ("exposure:v1:c", Arm.STUDENT, "v1", 0.25)
    assert (first.at, first.cluster, first.value, first.request_id) == (1000.0, "c", 0.0, "x1")
    assert (second.id, second.arm, second.propensity) == ("exposure:v1:other", Arm.TEACHER, 0.75)


async def test_each_version_in_service_counts_a_conversation_anew_and_what_belongs_to_none_is_not_counted() -> None:
    desk = Desk()
    await desk.take(asked(1))
    await desk.take(asked(2, in_service="v2"))
    await desk.take(asked(3, cluster="d", in_service=None))
    await desk.take(asked(4, cluster="e", eligible=False))
    await desk.take(asked(5, cluster="f", route="plain"))
    assert [o.id for o in desk.seen(Metric.EXPOSURE)] == ["exposure:v1:c", "exposure:v2:c"]


async def test_an_exposure_counts_whatever_became_of_the_call() -> None:
    desk = Desk()
    broken = call(Arm.TEACHER, status=502, error="http_502")
    await desk.take(exchange(1, served=broken, capture=False, decision=decision(in_service="v1")))
    assert len(desk.seen(Metric.EXPOSURE)) == 1


async def test_at_the_windows_end_the_last_report_counts_and_silence_is_nothing() -> None:
    desk = Desk()
    await desk.take(asked(1, arm=Arm.STUDENT, version="v1", propensity=0.25))
    await desk.take(asked(2, cluster="silent", at=1050.0))
    await desk.take(thumb(1, 0.2))
    await desk.take(thumb(1, 1.0, at=1020.0))
    desk.later(1099.9)
    assert desk.seen(Metric.OUTCOME) == []
    await desk.take(thumb(1, 0.9, at=1100.1))  # the clock has not been looked at since
    desk.later(1100.0)
    (one,) = desk.seen(Metric.OUTCOME)
    assert (one.id, one.value, one.at, one.arm, one.propensity) == ("outcome:v1:c", 1.0, 1100.0, Arm.STUDENT, 0.25)
    desk.later(1150.0)
    assert [(o.id, o.value) for o in desk.seen(Metric.OUTCOME)][1:] == [("outcome:v1:silent", 0.0)]
    assert desk.results == [("outcome", "taken")] * 2


async def test_any_request_of_a_conversation_may_be_reported_on_and_its_exposures_arm_is_charged() -> None:
    desk = Desk()
    await desk.take(asked(1, arm=Arm.STUDENT, version="v1", propensity=0.25))
    await desk.take(asked(2, at=1005.0))
    await desk.take(thumb(2, 0.5))
    desk.later(1100.0)
    assert [(o.value, o.arm) for o in desk.seen(Metric.OUTCOME)] == [(0.5, Arm.STUDENT)]


async def test_a_report_that_comes_before_its_exchange_waits_for_it() -> None:
    desk = Desk()
    await desk.take(thumb(1, 1.0))
    await desk.take(asked(1))
    desk.later(1100.0)
    assert [o.value for o in desk.seen(Metric.OUTCOME)] == [1.0]
    assert desk.results == [("outcome", "taken")]


async def test_a_report_that_is_repeated_too_early_waits_anew_and_holds_up_no_other() -> None:
    desk = Desk()
    for number, now in ((1, 1000.0), (2, 1060.0), (1, 1100.0)):
        desk.now = now
        await desk.take(thumb(number, now / 10_000, at=now))
    desk.later(1185.0)
    assert desk.results == [("outcome", "unknown")]
    await desk.take(asked(1, at=1090.0))
    desk.later(1190.0)
    assert [o.value for o in desk.seen(Metric.OUTCOME)] == [0.11]


async def test_a_late_or_unknown_report_is_counted_and_changes_nothing() -> None:
    desk = Desk()
    await desk.take(asked(1))
    desk.later(1100.0)
    await desk.take(thumb(1, 1.0, at=1101.0))
    await desk.take(thumb(99, 1.0))
    assert desk.results == []
    desk.later(1100.0 + EARLY_SECONDS + 1.0)
    assert desk.results == [("outcome", "unknown")] * 2
    await desk.take(asked(1, at=1300.0))
    desk.later(2000.0)
    assert [(o.id, o.value) for o in desk.seen(Metric.OUTCOME)] == [("outcome:v1:c", 0.0)]


async def test_a_bad_report_is_counted_and_never_stops_anything() -> None:
    desk = Desk()
    await desk.take(thumb(1, 1.0, route="nowhere"))
    await desk.take(thumb(1, 1.0, route="plain"))
    await desk.take(thumb(1, 1.5))
    await desk.take(thumb(1, float("nan")))
    await desk.take(thumb(1, None, truth_bytes=1), b"x")
    await desk.take(thumb(1, None, route="labelled", truth_bytes=1), b"\xff")
    assert [r for _, r in desk.results] == [
        "unknown_route", "not_wanted", "invalid", "invalid", "not_wanted", "invalid"
    ]  # fmt: skip
    assert desk.told[0]["route"] == ""
    assert everything(desk.log, Stream.FEEDBACK) == everything(desk.log, Stream.EVIDENCE) == []


@pytest.mark.parametrize("url", ["memory", "sqlite"])
async def test_a_restart_finds_open_windows_their_reports_and_what_ended_meanwhile(url: str, tmp_path: Path) -> None:
    log = MemoryLog() if url == "memory" else open_log(f"sqlite:///{tmp_path}/log.db")
    desk = Desk(log)
    await desk.take(asked(1, arm=Arm.STUDENT, version="v1", propensity=0.25))
    await desk.take(asked(2, cluster="over", at=905.0))
    await desk.take(asked(3, cluster="closed", at=900.0))
    await desk.take(thumb(1, 0.5))
    await desk.take(thumb(1, 0.75, at=1011.0))
    desk.later(1001.0)
    assert [o.id for o in desk.seen(Metric.OUTCOME)] == ["outcome:v1:closed"]

    again = Desk(log)  # the first is gone
    again.later(1006.0)
    assert [o.id for o in again.seen(Metric.OUTCOME)] == ["outcome:v1:closed", "outcome:v1:over"]
    await again.take(asked(4, at=1007.0))
    await again.take(asked(5, cluster="closed", at=1008.0))
    again.later(1100.0)
    last = again.seen(Metric.OUTCOME)[-1]
    assert (last.id, last.value, last.arm, last.at) == ("outcome:v1:c", 0.75, Arm.STUDENT, 1100.0)
    assert len(again.seen(Metric.OUTCOME)) == len(again.seen(Metric.EXPOSURE)) == 3
    log.close()


def test_a_restart_reads_back_as_far_as_a_window_may_reach_and_no_further() -> None:
    class Counted(MemoryLog):
        reads = 0

        def read(self, stream: Stream, offset: int, limit: int = 1000, *, key: str) -> Any:
            self.reads += 1
            return super().read(stream, offset, limit, key=key)

    log, day = Counted(), 86400.0
    now = 100 * day
    old = Observation(
        id="", at=0.0, route="support", version="v1", metric=Metric.EXPOSURE, arm=Arm.TEACHER, propensity=1.0, value=0.0
    )
    entries = []
    for n in range(3 * PAGE):
        at = now - 50.0 if n >= 2 * PAGE else 1.0
        one = msgspec.structs.replace(old, id=f"exposure:v1:c{n}", at=at, cluster=f"c{n}", request_id=f"x{n}")
        entries.append((Stream.EVIDENCE, record(one)))
    log.append(entries)
    outcomes = Outcomes(CONFIG.routes, Events())
    outcomes.restore(log, now)
    assert log.reads == 3  # one of them of the feedback
    assert len(outcomes.due(now)) == 0
    assert len(outcomes.due(now + 50.0)) == PAGE


def record(seen: Observation) -> Any:
    from collector import Record

    return Record(id=seen.id, key=seen.route, at=seen.at, value=encode_evidence(seen))


def test_no_more_windows_are_open_than_may_be_and_what_is_left_out_has_no_exposure() -> None:
    told: list[str] = []
    events = Events()
    events.subscribe(lambda name, fields: told.append(name))
    outcomes = Outcomes(CONFIG.routes, events, most_open=2)
    made = [len(outcomes.expose(asked(n, cluster=f"c{n}"))) for n in range(3)]  # type: ignore[arg-type]
    assert made == [1, 1, 0]
    assert told == ["collector.exposure_dropped"]
    assert len(outcomes.due(5000.0)) == 2


def labelled(number: int, student: str, teacher: str, *, route: str = "labelled") -> tuple[Header, bytes]:
    asking, said, also = question("what?"), answer(teacher), answer(student)
    header = exchange(
        number, request=asking, served=call(Arm.TEACHER, said), shadows=[call(Arm.STUDENT, also)], capture=False,
        at=1000.0, decision=decision(route=route),
    )  # fmt: skip
    return header, asking + said + also


def truth(number: int, text: str, *, at: float = 1010.0, route: str = "labelled") -> tuple[Feedback, bytes]:
    return thumb(number, at=at, route=route, truth_bytes=len(text.encode())), text.encode()


async def test_the_right_answer_makes_a_pair_of_what_waited_for_it_once() -> None:
    desk = Desk()
    await desk.take(*labelled(1, student="cat", teacher="fox"))
    assert desk.seen(Metric.QUALITY) == []
    await desk.take(*truth(1, "cat"))
    (one,) = desk.seen(Metric.QUALITY)
    assert (one.id, one.value, one.pair_value, one.at) == ("x1:quality:v1", 1.0, 0.0, 1000.0)
    await desk.take(*truth(1, "fox", at=1011.0))
    assert len(desk.seen(Metric.QUALITY)) == 1
    assert desk.results == [("truth", "taken")]


async def test_the_right_answer_may_come_first_and_may_come_too_late() -> None:
    desk = Desk()
    await desk.take(*truth(1, "fox"))
    await desk.take(*labelled(1, student="cat", teacher="fox"))
    assert [(o.value, o.pair_value) for o in desk.seen(Metric.QUALITY)] == [(0.0, 1.0)]
    await desk.take(*labelled(2, student="cat", teacher="fox"))
    await desk.take(*truth(2, "fox", at=1060.1))
    await desk.take(*truth(3, "fox"))
    desk.later(1300.0)
    assert [r for _, r in desk.results] == ["taken", "unknown", "unknown"]
    assert len(desk.seen(Metric.QUALITY)) == 1


async def test_right_answers_and_waiting_texts_are_never_appended() -> None:
    desk = Desk()
    await desk.take(*labelled(1, student="PRIVATE", teacher="PRIVATE"))
    await desk.take(*truth(1, "PRIVATE"))
    for stream in Stream:
        assert b"PRIVATE" not in b"".join(e.value for e in everything(desk.log, stream))


def test_texts_that_wait_are_bounded_in_bytes_and_the_oldest_make_room() -> None:
    waiting = Truths(most_bytes=10_000)
    assert waiting.keep("a", [], until=10.0, size=1000) == 0
    assert waiting.keep("b", [], until=10.0, size=1000) == 0
    assert waiting.keep("c", [], until=10.0, size=1000) == 1
    assert waiting.take("a", 5.0) is None
    assert waiting.take("b", 5.0) == []
    assert waiting.take("b", 5.0) is None
    assert waiting.take("c", 10.1) is None
    waiting.keep("d", [], until=10.0, size=1000)
    waiting.expire(10.1)
    assert waiting.keep("e", [], until=20.0, size=2500) == 0, "what has expired takes no room"


class Letters:
    """Texts as unit vectors by their first letter."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        turns = {"a": 0.0, "b": np.pi / 3, "z": np.pi}
        return np.array([[np.cos(turns[t[0]]), np.sin(turns[t[0]])] for t in texts], dtype=np.float32)


async def test_meanings_are_compared_with_the_right_answer_in_one_pass() -> None:
    letters = Letters()
    desk = Desk(quality=Quality(Events(), encoder=letters))
    await desk.take(*labelled(1, student="b", teacher="zero", route="alike"))
    await desk.take(*truth(1, "a", route="alike"))
    (one,) = desk.seen(Metric.QUALITY)
    assert (one.value, one.pair_value) == (pytest.approx(0.5), 0.0)
    assert letters.asked == [["b", "a", "zero"]]


async def test_without_its_model_a_pair_is_lost_and_counted() -> None:
    class Broken:
        async def vectors(self, texts: Sequence[str]) -> Vectors:
            raise CollectorError

    heard: list[str] = []
    events = Events()
    events.subscribe(lambda name, fields: heard.append(fields.get("reason", "")))
    desk = Desk(quality=Quality(events, encoder=Broken()))
    await desk.take(*labelled(1, student="b", teacher="a", route="alike"))
    await desk.take(*truth(1, "c", route="alike"))
    assert desk.seen(Metric.QUALITY) == []
    assert heard == ["encoder"]
