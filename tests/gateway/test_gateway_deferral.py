"""A student's answer under the threshold is the teacher's to give: before the first byte, and no failure of anybody."""

import asyncio
import logging
import time

import pytest
from gateway_fakes import (
    DONE,
    REQUEST,
    STREAM,
    STUDENT,
    FakeUpstream,
    completion,
    error,
    gateway,
    hang,
    live,
    plain,
    settings,
    stream,
)

from gateway.errors import Deferred, GatewayError, UpstreamError
from gateway.hard_stop import ERRORS, WINDOW
from router import Arm, Rollout, Stage

STREAMING = {**REQUEST, "stream": True}
SELECTIVE = live(live_threshold=0.8)
AUDITED = "quality: {audit_rate: 1.0}"


def says(confidence: str) -> dict[str, str]:
    return {"x-retort-confidence": confidence}


@pytest.mark.parametrize(
    ("header", "server"),
    [
        (says("0.8"), STUDENT),
        (says("1"), STUDENT),
        (says("0.7999"), "teacher"),
        (says("0"), "teacher"),
        (says("high"), "teacher"),
        (says("nan"), "teacher"),
        ({}, "teacher"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_student_serves_from_the_threshold_on_and_the_teacher_below_it_or_where_no_confidence_came(
    teacher: FakeUpstream, student: FakeUpstream, header: dict[str, str], server: str, streaming: bool
) -> None:
    mine = [*STREAM[:1], *STREAM[2:]]
    student.will(stream(mine, headers=header) if streaming else plain("mine", headers=header))
    teacher.will(stream(STREAM) if streaming else plain("hello"))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(STREAMING if streaming else REQUEST) as got:
            assert (got.status, got.headers["x-retort-served-by"]) == (200, server)
            assert "x-retort-confidence" not in got.headers
            answer = await got.read()
        by_student = b"".join(mine) if streaming else completion("mine")
        by_teacher = b"".join(STREAM) if streaming else completion("hello")
        assert answer == (by_student if server == STUDENT else by_teacher)
        assert len(teacher.asked) == (server == "teacher")
        assert len(running.events("gateway.deferred")) == (server == "teacher")


async def test_a_deferred_plain_answer_goes_along_whole_beside_the_teachers_and_is_no_failure(
    teacher: FakeUpstream, student: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    student.will(plain("mine", headers=says("0.3")))
    with caplog.at_level(logging.INFO):
        async with gateway(settings(teacher.url)) as running:
            await running.roll_out(SELECTIVE, url=student.url)
            async with running.post(REQUEST, x_retort_consent="no") as got:
                assert await got.read() == completion("hello")
            exchange, bodies = await running.sender.exchange()
            assert running.events("gateway.deferred") == [{"route": "support", "version": STUDENT}]
            assert running.events("gateway.fallback") == []
            assert running.events("gateway.shadow") == []
            (fields,) = running.events("gateway.request")
    (call,) = exchange.shadows
    assert (call.arm, call.version, call.status, call.error) == (Arm.STUDENT, STUDENT, 200, None)
    assert (call.deferred, call.confidence, call.body_bytes) == (True, 0.3, len(completion("mine")))
    assert bodies[1:] == (completion("hello"), completion("mine"))
    assert (exchange.failed, exchange.served.arm, exchange.served.deferred) == ((), Arm.TEACHER, False)
    assert (exchange.decision.arm, exchange.decision.version, exchange.decision.threshold) == (
        Arm.STUDENT,
        STUDENT,
        0.8,
    )
    assert (fields["arm"], fields["version"], fields["outcome"]) == (Arm.TEACHER, None, "ok")
    assert call.total_ms is not None
    assert exchange.served.total_ms is not None
    assert exchange.total_ms >= call.total_ms + exchange.served.total_ms
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_deferred_stream_is_closed_at_once_and_has_nothing_to_compare(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(stream(STREAM[:2], end="hang", headers=says("0.3")))
    teacher.will(stream(STREAM, pause=0.05))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(STREAMING, x_retort_consent="no") as got:
            assert await got.read() == b"".join(STREAM)
        await asyncio.wait_for(student.gone.wait(), 1)
        exchange, bodies = await running.sender.exchange()
    (call,) = exchange.shadows
    assert (call.deferred, call.error, call.body_bytes, call.ttft_ms, call.confidence) == (True, None, 0, None, 0.3)
    assert bodies == (b"", b"", b"")  # no consent, and no pair
    assert exchange.failed == ()
    assert exchange.ttft_ms is not None
    assert exchange.served.ttft_ms is not None
    assert call.total_ms is not None
    assert exchange.ttft_ms >= call.total_ms + exchange.served.ttft_ms  # as the client saw it


async def test_a_deferred_stream_that_an_audit_drew_is_read_to_its_end_and_compared(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(stream(STREAM, pause=0.05, headers=says("0.3")))
    teacher.will(stream(STREAM))
    async with gateway(settings(teacher.url, route="quality: {audit_rate: 1.0}")) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(STREAMING) as got:
            assert got.headers["x-retort-served-by"] == "teacher"
            assert await got.read() == b"".join(STREAM)
        exchange, bodies = await running.sender.exchange()
    (call,) = exchange.shadows
    assert (call.deferred, call.error, call.confidence) == (True, None, 0.3)
    assert bodies[1] == bodies[2] == b"".join(STREAM)
    assert exchange.decision.audited == 1.0


async def test_an_audited_deferred_stream_that_breaks_off_has_nothing_to_compare_and_is_no_failure(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(stream(STREAM[:2], end="cut", headers=says("0.3")))
    teacher.will(stream(STREAM))
    async with gateway(settings(teacher.url, route="quality: {audit_rate: 1.0}")) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(STREAMING) as got:
            assert await got.read() == b"".join(STREAM)
        exchange, bodies = await running.sender.exchange()
    (call,) = exchange.shadows
    assert (call.deferred, call.error, bodies[2]) == (True, None, b"")


async def test_a_deferral_frees_the_engine_before_the_teacher_has_said_anything(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(stream(STREAM[:2], end="hang", headers=says("0.3")))
    teacher.will(hang())
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        calling = asyncio.create_task(_read(running, STREAMING))
        await teacher.arrived.wait()
        await asyncio.wait_for(student.gone.wait(), 1)
        calling.cancel()
        await running.sender.exchange()


async def test_a_streams_header_decides_and_is_reported_whatever_the_comment_at_its_end_says(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    commented = [*STREAM[:4], b": retort-confidence 0.1\n\n", DONE]
    student.will(stream(commented, headers=says("0.9")), stream(commented, headers=says("x")), stream(commented))
    async with gateway(settings(teacher.url)) as running:
        for number, (rollout, confidence) in enumerate([(SELECTIVE, 0.9), (live(2), 0.1), (live(3), 0.1)]):
            await running.roll_out(rollout, url=student.url)
            async with running.post(STREAMING) as got:
                assert await got.read() == b"".join(STREAM)
            exchange, _ = await running.sender.exchange(number)
            assert (exchange.served.version, exchange.served.confidence) == (STUDENT, confidence)


async def test_the_canary_is_held_to_its_own_threshold_and_the_live_version_to_its_own(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", headers=says("0.5")))
    async with gateway(settings(teacher.url)) as running:
        canary = Rollout(route="support", revision=2, challenger=STUDENT, stage=Stage.CANARY, fraction=1.0)
        for rollout, server in (
            (live(challenger_threshold=0.9), STUDENT),
            (live(live_threshold=0.9), "teacher"),
            (_with(canary, live_threshold=0.9), STUDENT),
            (_with(canary, challenger_threshold=0.9), "teacher"),
        ):
            await running.roll_out(rollout, url=student.url)
            async with running.post(REQUEST) as got:
                assert got.headers["x-retort-served-by"] == server


async def test_a_failure_of_the_student_stays_a_failure_where_it_serves_selectively(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(500, headers=says("0.1")))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 200
        exchange, _ = await running.sender.exchange()
        assert running.events("gateway.deferred") == []
        assert len(running.events("gateway.fallback")) == 1
    assert [call.error for call in exchange.failed] == ["http_500"]
    assert exchange.shadows == ()


async def test_deferrals_neither_stop_a_version_nor_push_its_failures_out_of_the_count(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    unsure = plain("mine", headers=says("0.1"))
    student.will(*[error(500)] * (ERRORS - 1), *[unsure] * (WINDOW + 1), error(500))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        for number in range(ERRORS + WINDOW + 1):
            assert running.sender.happened == []
            async with running.post(REQUEST) as got:
                assert got.status == 200
            await running.sender.exchange(number)
        assert [told.event.version for told in running.sender.happened] == [STUDENT]
    assert len(student.asked) == ERRORS + WINDOW + 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_when_every_teacher_fails_after_a_deferral_the_unsure_answer_is_not_used(
    teacher: FakeUpstream, second: FakeUpstream, student: FakeUpstream, streaming: bool
) -> None:
    student.will((stream(STREAM, headers=says("0.1"))) if streaming else plain("mine", headers=says("0.1")))
    teacher.will(error(500))
    second.will(error(503))
    async with gateway(settings(teacher.url, second=second.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(STREAMING if streaming else REQUEST) as got:
            assert got.status == 502
            assert (await got.json())["error"]["code"] == "upstream_http_503"
        exchange, _ = await running.sender.exchange()
        (fallback,) = running.events("gateway.fallback")
        (fields,) = running.events("gateway.request")
        assert running.sender.happened == []
    assert (exchange.served.upstream, exchange.served.error) == ("two/other-model", "http_503")
    assert [call.upstream for call in exchange.failed] == ["one/gpt-4o"]
    assert [(call.version, call.deferred, call.error) for call in exchange.shadows] == [(STUDENT, True, None)]
    assert (fallback["arm"], fallback["error"]) == (Arm.TEACHER, "http_500")
    assert fields["outcome"] == "upstream_error"


async def test_a_teacher_has_after_a_deferral_what_is_left_of_the_deadline(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", delay=0.15, headers=says("0.1")))
    teacher.will(hang())
    async with gateway(settings(teacher.url, timeout="800ms")) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 504
        exchange, _ = await running.sender.exchange()
    assert exchange.served.total_ms is not None
    assert exchange.served.total_ms < 700  # alone it would have had 800


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_while_the_teacher_answers_a_deferred_request_cancels_the_teacher(
    teacher: FakeUpstream, student: FakeUpstream, streaming: bool
) -> None:
    student.will(stream(STREAM, headers=says("0.1")) if streaming else plain("mine", headers=says("0.1")))
    teacher.will(hang())
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        calling = asyncio.create_task(_read(running, STREAMING if streaming else REQUEST))
        await teacher.arrived.wait()
        await asyncio.sleep(0.05)
        left_at = time.monotonic()
        calling.cancel()
        await asyncio.wait_for(teacher.gone.wait(), 1)
        exchange, _ = await running.sender.exchange()
        (fields,) = running.events("gateway.request")
        assert running.sender.happened == []
    assert teacher.gone_at - left_at < 0.2
    assert (exchange.served.arm, exchange.served.error, fields["outcome"]) == (Arm.TEACHER, "cancelled", "cancelled")
    assert [(call.deferred, call.error) for call in exchange.shadows] == [(True, None)]


async def test_the_teacher_that_answers_a_deferred_request_is_not_asked_again_by_an_audit(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", headers=says("0.1")))
    async with gateway(settings(teacher.url, route=AUDITED)) as running:
        await running.roll_out(SELECTIVE, url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 200
        exchange, _ = await running.sender.exchange()
    assert len(teacher.asked) == 1
    assert [call.deferred for call in exchange.shadows] == [True]


def test_a_deferral_is_no_upstream_error() -> None:
    assert issubclass(Deferred, GatewayError)
    assert not issubclass(Deferred, UpstreamError)


def _with(rollout: Rollout, **changes: float) -> Rollout:
    fields = {name: getattr(rollout, name) for name in rollout.__struct_fields__}
    return Rollout(**{**fields, **changes})


async def _read(running, body) -> None:
    async with running.post(body) as got:
        await got.read()
