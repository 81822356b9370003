"""Shadow calls run beside the answer, in bounded number, and travel with their exchange."""

import asyncio

import pytest
from gateway_fakes import (
    DONE,
    ERROR_EVENT,
    REQUEST,
    STREAM,
    STUDENT,
    Asked,
    FakeUpstream,
    completion,
    error,
    gateway,
    hang,
    live,
    plain,
    settings,
    shadowing,
    stream,
)

from collector import Exchange
from gateway.shadow import MOST_AT_ONCE
from router import Arm

AUDITED = "quality: {audit_rate: 1.0}"


async def test_a_shadowed_request_yields_one_exchange_with_both_answers(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", headers={"x-retort-confidence": "0.5"}))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("hello")
        exchange, bodies = await running.sender.exchange()
        assert running.events("gateway.shadow") == [{"route": "support", "arm": Arm.STUDENT, "outcome": "ok"}]
    assert len(running.sender.frames) == 1
    assert bodies[1:] == (completion("hello"), completion("mine"))
    (call,) = exchange.shadows
    assert (call.arm, call.version, call.confidence, call.error) == (Arm.STUDENT, STUDENT, 0.5, None)
    assert call.body_bytes == len(bodies[2])
    assert student.asked[0].path == "/v1/chat/completions"


async def test_a_slow_shadow_never_delays_the_client(teacher: FakeUpstream, student: FakeUpstream) -> None:
    answered = asyncio.Event()

    async def when_the_client_has_its_answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answered.wait()
        await plain("mine")(asked, writer)

    student.will(when_the_client_has_its_answer)
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST) as got:
            await got.read()
        assert running.sender.frames == []
        answered.set()
        exchange, _ = await running.sender.exchange()
    assert exchange.shadows[0].error is None


async def test_a_streams_shadow_streams_too_and_has_its_own_time_to_first_chunk(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    teacher.will(stream(STREAM))
    student.will(stream([*STREAM[:4], b": retort-confidence 0.75\n\n", DONE], pause=0.01))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post({**REQUEST, "stream": True}) as got:
            await got.read()
        exchange, bodies = await running.sender.exchange()
    (call,) = exchange.shadows
    assert student.asked[0].json["stream"] is True
    assert bodies[2] == b"".join(STREAM)
    assert call.ttft_ms is not None
    assert call.total_ms is not None
    assert (call.confidence, 9 < call.ttft_ms < call.total_ms) == (0.75, True)


async def test_an_audit_asks_the_teacher_about_a_students_answer(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(plain("mine"))
    async with gateway(settings(teacher.url, route=AUDITED)) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post({**REQUEST, "model": "support"}) as got:
            assert await got.read() == completion("mine")
        exchange, bodies = await running.sender.exchange()
    assert [call.upstream for call in exchange.shadows] == ["one/gpt-4o"]
    assert bodies[2] == completion("hello")
    assert teacher.asked[0].json["model"] == "gpt-4o"
    assert teacher.asked[0].headers["authorization"] == "Bearer sk-operator"


async def test_a_teacher_that_rescued_the_answer_is_not_asked_again(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(500))
    async with gateway(settings(teacher.url, route=AUDITED)) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 200
        exchange, _ = await running.sender.exchange()
    assert len(teacher.asked) == 1
    assert exchange.shadows == ()


async def test_a_failing_shadow_is_reported_and_does_not_count_towards_the_hard_stop(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(500))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        for number in range(21):
            async with running.post(REQUEST) as got:
                assert got.status == 200
            exchange, _ = await running.sender.exchange(number)
            assert exchange.shadows[0].error == "http_500"
        assert running.sender.happened == []
    assert len(student.asked) == 21


async def test_a_shadow_call_of_a_version_that_has_gone_away_meanwhile_is_dropped(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def when_it_has_gone(asked: Asked, writer: asyncio.StreamWriter) -> None:
        came.set()
        await gone.wait()
        await plain("late")(asked, writer)

    teacher.will(when_it_has_gone, plain("hello"))
    student.will(error(404))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)

        async def late() -> bytes:
            async with running.post(REQUEST) as got:
                return await got.read()

        planned = asyncio.create_task(late())
        await came.wait()
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("hello")
        assert (await running.sender.exchange())[0].shadows[0].error == "http_404"
        gone.set()
        assert await planned == completion("late")
        exchange, _ = await running.sender.exchange(1)
        assert exchange.shadows == ()
        assert running.events("gateway.shadow")[-1]["outcome"] == "dropped"
    assert len(student.asked) == 1


async def test_a_shadow_stream_that_breaks_is_reported_as_broken(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(stream(STREAM[:3], end="cut"), stream([*STREAM[:3], ERROR_EVENT]))
    teacher.will(stream(STREAM))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        for number, constant in enumerate(("cut", "stream_error")):
            async with running.post({**REQUEST, "stream": True}) as got:
                await got.read()
            exchange, _ = await running.sender.exchange(number)
            assert exchange.shadows[0].error == constant


async def test_a_refused_request_is_not_shadowed(teacher: FakeUpstream, student: FakeUpstream) -> None:
    teacher.will(error(400))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 400
        exchange, _ = await running.sender.exchange()
    assert student.asked == []
    assert exchange.served.error == "http_400"


async def test_without_consent_a_pair_still_travels_to_be_scored_but_is_marked(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST, x_retort_consent="no"):
            pass
        exchange, bodies = await running.sender.exchange()
    assert exchange.capture is False
    assert all(bodies)


async def test_shadows_without_room_are_dropped_with_an_event_and_the_exchange_goes_on(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(hang())
    async with gateway(settings(teacher.url, timeout="2s")) as running:
        await running.roll_out(shadowing(), url=student.url)

        async def ask() -> None:
            async with running.post(REQUEST) as got:
                assert got.status == 200

        await asyncio.gather(*(ask() for _ in range(MOST_AT_ONCE + 3)))
        async with asyncio.timeout(2):
            await running.sender.exchange(2)
        outcomes = [fields["outcome"] for fields in running.events("gateway.shadow")]
        assert outcomes == ["dropped"] * 3
        await running.app.shadows.join(timeout=5)
        exchange, _ = await running.sender.exchange(MOST_AT_ONCE + 2)
        assert exchange.shadows[0].error == "timeout"


async def test_shadows_that_outlast_the_stop_are_given_up_and_their_exchanges_kept(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(hang())
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST):
            pass
        await student.arrived.wait()
        await running.app.shadows.join(timeout=0.05)
        exchange, bodies = await running.sender.exchange()
    assert exchange.shadows[0].error == "cancelled"
    assert bodies[1] == completion("hello")


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_exchange_is_spooled_before_its_answers_last_bytes_leave_and_is_over_with_its_shadows(
    teacher: FakeUpstream, student: FakeUpstream, *, streaming: bool
) -> None:
    teacher.will(stream(STREAM) if streaming else plain("hello"))
    student.will(plain("mine", delay=0.3))
    async with gateway(settings(teacher.url)) as running:
        running.sender.spools = True
        await running.roll_out(shadowing(), url=student.url)
        async with running.post({**REQUEST, "stream": streaming}) as got:
            await got.read()
        assert running.sender.over == []
        ((begun, bodies),) = running.sender.begun
        exchange, whole = await running.sender.exchange()
    assert isinstance(begun, Exchange)
    assert (begun.id, begun.shadows, bodies[1]) == (exchange.id, (), whole[1])
    assert len(exchange.shadows) == 1
    assert running.sender.over == [1]


async def test_without_a_spool_nothing_is_begun(teacher: FakeUpstream, student: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST) as got:
            await got.read()
        await running.sender.exchange()
    assert running.sender.begun == []


async def test_with_a_spool_what_has_no_shadow_is_told_once_before_its_answers_last_bytes_leave(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    for behaviour, streaming in ((plain("hello"), False), (stream(STREAM), True)):
        teacher.will(behaviour)
        async with gateway(settings(teacher.url)) as running:
            running.sender.spools = True
            async with running.post({**REQUEST, "stream": streaming}) as got:
                await got.read()
            exchange, bodies = await running.sender.exchange()
            await asyncio.sleep(0.05)
            assert len(running.sender.frames) == 1
            assert running.sender.begun == []
            assert (exchange.served.error, exchange.stream) == (None, streaming)
            assert exchange.served.total_ms is not None
            assert bodies[1] == (b"".join(STREAM) if streaming else completion("hello"))
