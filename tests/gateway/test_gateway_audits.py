"""Who is asked besides, as the rollout and the policy say: a probed canary, full audits, a teacher's second answer."""

from gateway_fakes import (
    REQUEST,
    STREAM,
    STUDENT,
    FakeUpstream,
    completion,
    error,
    gateway,
    live,
    plain,
    settings,
    stream,
)
from gateway_fakes import shadowing as shadow

from router import Arm, Rollout, Stage

SELF = "quality: {reference: self, audit_rate: 1.0}"
UNSURE = {"x-retort-confidence": "0.1"}


async def test_a_probed_canary_is_asked_besides_on_the_teachers_requests_of_its_next_step(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine"))
    async with gateway(settings(teacher.url)) as running:
        canary = Rollout(route="support", revision=1, challenger=STUDENT, stage=Stage.CANARY, fraction=1e-9, probe=1.0)
        await running.roll_out(canary, url=student.url)
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("hello")
        exchange, bodies = await running.sender.exchange()
    assert [(call.version, call.error) for call in exchange.shadows] == [(STUDENT, None)]
    assert bodies[1:] == (completion("hello"), completion("mine"))


async def test_a_live_version_may_be_audited_on_every_answer(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(plain("mine"))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(audit_all=True), url=student.url)
        for number in range(3):
            async with running.post(REQUEST) as got:
                assert await got.read() == completion("mine")
            exchange, _ = await running.sender.exchange(number)
            assert [call.upstream for call in exchange.shadows] == ["one/gpt-4o"]
            assert exchange.decision.audited == 1.0


async def test_with_self_a_shadowed_request_of_the_teacher_asks_it_a_second_time(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine"))
    teacher.will(plain("first"), plain("second"))
    async with gateway(settings(teacher.url, route=SELF)) as running:
        await running.roll_out(shadow(), url=student.url)
        async with running.post(REQUEST, idempotency_key="k1") as got:
            assert await got.read() == completion("first")
        exchange, bodies = await running.sender.exchange()
    assert [call.arm for call in exchange.shadows] == [Arm.STUDENT, Arm.TEACHER]
    assert bodies[1:] == (completion("first"), completion("mine"), completion("second"))
    assert [asked.headers.get("idempotency-key") for asked in teacher.asked] == ["k1", None]


async def test_with_self_an_audit_asks_the_teacher_twice(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(plain("mine"))
    async with gateway(settings(teacher.url, route=SELF)) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("mine")
        exchange, _ = await running.sender.exchange()
    assert [call.upstream for call in exchange.shadows] == ["one/gpt-4o"] * 2


async def test_with_self_a_deferred_answer_is_compared_with_the_teacher_that_served_and_its_second_answer(
    teacher: FakeUpstream, second: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", headers=UNSURE))
    teacher.will(error(500))
    second.will(plain("first"), plain("second"))
    async with gateway(settings(teacher.url, second=second.url, route=SELF)) as running:
        await running.roll_out(live(live_threshold=0.8), url=student.url)
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("first")
        exchange, bodies = await running.sender.exchange()
    assert [(call.upstream, call.deferred) for call in exchange.shadows] == [(None, True), ("two/other-model", False)]
    assert bodies[2:] == (completion("mine"), completion("second"))
    assert len(teacher.asked) == 1


async def test_with_self_no_second_answer_is_asked_for_where_no_students_answer_is_there_to_compare(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    teacher.will(plain("hello"), stream(STREAM))
    student.will(error(500), stream(STREAM, headers=UNSURE))
    async with gateway(settings(teacher.url, route=SELF)) as running:
        await running.roll_out(live(live_threshold=0.8), url=student.url)
        for streaming in (False, True):
            async with running.post({**REQUEST, "stream": streaming}) as got:
                assert got.headers["x-retort-served-by"] == "teacher"
                await got.read()
        await running.sender.exchange(1)
    assert len(teacher.asked) == 2


async def test_shadows_that_were_planned_besides_still_run_after_a_deferral(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine", headers=UNSURE))
    async with gateway(settings(teacher.url, route="quality: {audit_rate: 1.0}")) as running:
        rollout = live(live_threshold=0.8, challenger="support-next", stage=Stage.SHADOW)
        await running.roll_out(rollout, url=student.url)
        running.registry.value.endpoints["support-next"] = student.url
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("hello")
        exchange, _ = await running.sender.exchange()
    assert [(call.version, call.deferred) for call in exchange.shadows] == [(STUDENT, True), ("support-next", False)]
    assert len(teacher.asked) == 1
