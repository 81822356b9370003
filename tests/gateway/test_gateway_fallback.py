"""Before the first byte a failure falls back: student, teacher, next teacher. After it nothing is retried."""

import asyncio
import json
import time
from itertools import pairwise

import pytest
from gateway_fakes import (
    DONE,
    ERROR_EVENT,
    REQUEST,
    ROLE,
    STREAM,
    STUDENT,
    Behaviour,
    FakeUpstream,
    completion,
    drop,
    error,
    event,
    gateway,
    hang,
    live,
    plain,
    reply,
    settings,
    stream,
)

from gateway.hard_stop import ERRORS

STREAMING = {**REQUEST, "stream": True}


async def test_a_live_student_serves_and_is_named(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(plain("from the student", headers={"x-retort-confidence": "0.9731"}))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(REQUEST) as got:
            assert await got.read() == completion("from the student")
            assert got.headers["x-retort-served-by"] == STUDENT
            assert "x-retort-confidence" not in got.headers
        exchange, bodies = await running.sender.exchange()
    assert teacher.asked == []
    assert exchange.served.confidence == 0.9731
    assert (exchange.served.version, exchange.served.status, exchange.served.error) == (STUDENT, 200, None)
    assert bodies == (json.dumps(REQUEST).encode(), completion("from the student"))


@pytest.mark.parametrize(
    ("behaviour", "constant"),
    [
        (drop(), "connect"),
        (hang(), "timeout"),
        (error(500), "http_500"),
        (error(429), "http_429"),
        (error(400), "http_400"),
        (error(404), "http_404"),
        (reply(b""), "empty"),
    ],
)
async def test_a_students_failure_is_rescued_by_the_teacher(
    teacher: FakeUpstream, student: FakeUpstream, behaviour: Behaviour, constant: str
) -> None:
    student.will(behaviour)
    async with gateway(settings(teacher.url, timeout="800ms")) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(REQUEST) as got:
            assert (got.status, await got.read()) == (200, completion("hello"))
            assert got.headers["x-retort-served-by"] == "teacher"
        exchange, _ = await running.sender.exchange()
        (fallback,) = running.events("gateway.fallback")
    assert exchange.served.upstream == "one/gpt-4o"
    assert [(call.version, call.error) for call in exchange.failed] == [(STUDENT, constant)]
    assert (fallback["arm"], fallback["error"]) == ("student", constant)


async def test_a_request_that_the_teacher_refuses_too_is_not_held_against_the_student(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(400))
    teacher.will(error(400, "temperature must be at most 2"))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(), url=student.url)
        for _ in range(ERRORS + 2):
            async with running.post(REQUEST) as got:
                assert got.status == 400
                assert b"temperature must be at most 2" in await got.read()
        assert len(student.asked) == ERRORS + 2
        assert running.sender.happened == []


async def test_a_student_that_listens_nowhere_is_rescued(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(), url="http://127.0.0.1:9/v1")
        async with running.post(REQUEST) as got:
            assert got.status == 200
        exchange, _ = await running.sender.exchange()
    assert exchange.failed[0].error == "connect"


@pytest.mark.parametrize(
    ("behaviour", "constant"),
    [
        (stream([]), "empty"),
        (stream([DONE]), "empty"),
        (stream([b": ping\n\n", ROLE], end="clean"), "empty"),
        (stream([ERROR_EVENT, DONE]), "stream_error"),
        (stream([b": ping\n\n", ROLE, ERROR_EVENT]), "stream_error"),
        (stream([b'event: error\ndata: {"message": "no"}\n\n']), "stream_error"),
        (stream([ROLE], end="cut"), "cut"),
        (stream([ROLE], end="hang"), "timeout"),
        (error(503), "http_503"),
    ],
)
async def test_a_stream_that_fails_before_its_first_real_chunk_is_rescued_unseen(
    teacher: FakeUpstream, student: FakeUpstream, behaviour: Behaviour, constant: str
) -> None:
    student.will(behaviour)
    teacher.will(stream(STREAM))
    async with gateway(settings(teacher.url, timeout="800ms")) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(STREAMING) as got:
            assert await got.read() == b"".join(STREAM)
        exchange, _ = await running.sender.exchange()
    assert [call.error for call in exchange.failed] == [constant]
    assert exchange.served.error is None


@pytest.mark.parametrize("behaviour", [drop(), hang(), error(500), error(503), error(429), error(408), reply(b"")])
async def test_a_teachers_failure_goes_to_the_next_teacher_under_its_own_model_and_key(
    teacher: FakeUpstream, second: FakeUpstream, behaviour: Behaviour
) -> None:
    teacher.will(behaviour)
    async with gateway(settings(teacher.url, second=second.url, timeout="300ms")) as running:
        async with running.post(REQUEST) as got:
            assert got.status == 200
        exchange, _ = await running.sender.exchange()
    assert second.asked[0].json["model"] == "other-model"
    assert second.asked[0].headers["authorization"] == "Bearer sk-second"
    assert exchange.served.upstream == "two/other-model"


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (drop(), 502, "upstream_connect"),
        (hang(), 504, "upstream_timeout"),
        (error(500, "at 10.0.0.7"), 502, "upstream_http_500"),
        (reply(b""), 502, "upstream_empty"),
    ],
)
async def test_when_all_fail_the_client_gets_our_error_without_topology(
    teacher: FakeUpstream, behaviour: Behaviour, status: int, code: str
) -> None:
    teacher.will(behaviour)
    async with gateway(settings(teacher.url, timeout="200ms")) as running:
        async with running.post(STREAMING) as got:
            assert got.status == status
            text = await got.text()
        exchange, _ = await running.sender.exchange()
        (fields,) = running.events("gateway.request")
    assert json.loads(text)["error"]["code"] == code
    assert "127.0.0.1" not in text
    assert "10.0.0.7" not in text
    assert exchange.served.error is not None
    assert exchange.failed == ()
    assert fields["outcome"] == "upstream_error"


async def test_the_last_teachers_rate_limit_reaches_the_client_with_its_retry_after(teacher: FakeUpstream) -> None:
    teacher.will(error(429, "slow down", headers={"retry-after": "7"}))
    async with gateway(settings(teacher.url)) as running, running.post(REQUEST) as got:
        assert (got.status, got.headers["retry-after"]) == (429, "7")
        assert (await got.json())["error"]["message"] == "slow down"


async def test_a_fallback_has_only_what_is_left_of_the_deadline(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(hang())
    teacher.will(hang())
    async with gateway(settings(teacher.url, timeout="800ms")) as running:
        await running.roll_out(live(), url=student.url)
        async with running.post(REQUEST) as got:
            assert got.status == 504
        exchange, _ = await running.sender.exchange()
    assert exchange.failed[0].total_ms is not None
    assert exchange.served.total_ms is not None
    assert 190 < exchange.failed[0].total_ms < 400  # a quarter, so that a hanging student leaves the teacher time
    assert 500 < exchange.served.total_ms < 700  # the teacher alone would have had 800


@pytest.mark.parametrize(("end", "constant"), [("cut", "cut"), ("hang", "timeout")])
async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_end_marker(
    teacher: FakeUpstream, second: FakeUpstream, end: str, constant: str
) -> None:
    broken = [ROLE, event({"content": "hel"}), event({"content": "lo"})[:30]]
    teacher.will(stream(broken, end=end))
    async with gateway(settings(teacher.url, second=second.url, timeout="300ms")) as running:
        async with running.post(STREAMING) as got:
            assert got.status == 200
            events = (await got.read()).split(b"\n\n")
        exchange, bodies = await running.sender.exchange()
        (fields,) = running.events("gateway.request")
    assert events[:2] == [ROLE.strip(), event({"content": "hel"}).strip()]  # whole events only
    assert json.loads(events[2].removeprefix(b"data: "))["error"]["code"] == f"upstream_{constant}"
    assert events[3:] == [b""]
    assert second.asked == []
    assert (exchange.served.error, fields["outcome"]) == (constant, "cut")
    assert bodies[1] == b"".join(broken)


async def test_a_stream_that_just_stops_is_told_apart_from_a_whole_one(teacher: FakeUpstream) -> None:
    teacher.will(stream(STREAM[:3]), stream(STREAM[:4]), stream([*STREAM[:3], ERROR_EVENT]))
    async with gateway(settings(teacher.url)) as running:
        async with running.post(STREAMING) as got:
            stopped = await got.read()
        async with running.post(STREAMING) as got:
            without_marker = await got.read()
        async with running.post(STREAMING) as got:
            told = await got.read()
        outcomes = [fields["outcome"] for fields in running.events("gateway.request")]
    assert b'"code":"upstream_cut"' in stopped
    assert without_marker == b"".join(STREAM[:4])  # it has a finish reason
    assert told == b"".join([*STREAM[:3], ERROR_EVENT])  # the upstream's own error is enough
    assert outcomes == ["cut", "ok", "cut"]


async def test_the_confidence_comment_is_read_and_never_seen(teacher: FakeUpstream, student: FakeUpstream) -> None:
    comment = b": retort-confidence 0.25\n\n"
    for at in range(0, len(comment), 5):
        student.behaviours.append(stream([*STREAM[:4], comment[:at], comment[at:], DONE] if at else STREAM))
    student.will(*[stream([*STREAM[:4], comment[:at], comment[at:], DONE], pause=0.002) for at in (1, 2, 9, 20, 25)])
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(), url=student.url)
        for number in range(5):
            async with running.post(STREAMING) as got:
                assert await got.read() == b"".join(STREAM)
            exchange, bodies = await running.sender.exchange(number)
            assert exchange.served.confidence == 0.25
            assert bodies[1] == b"".join(STREAM)


async def test_the_headers_of_a_stream_wait_for_its_first_real_chunk(teacher: FakeUpstream) -> None:
    teacher.will(stream([ROLE, *STREAM[1:]], pause=0.15))
    async with gateway(settings(teacher.url)) as running:
        began = time.monotonic()
        async with running.post(STREAMING) as got:
            assert time.monotonic() - began >= 0.14
            await got.read()
        exchange, _ = await running.sender.exchange()
    assert exchange.ttft_ms is not None
    assert exchange.served.ttft_ms is not None
    assert 140 < exchange.served.ttft_ms <= exchange.ttft_ms < exchange.total_ms


async def test_chunks_go_on_as_they_come(teacher: FakeUpstream) -> None:
    teacher.will(stream(STREAM[1:], pause=0.1))
    came: list[float] = []
    async with gateway(settings(teacher.url)) as running, running.post(STREAMING) as got:
        async for _ in got.content.iter_any():
            came.append(asyncio.get_running_loop().time())
    assert len(came) == 4
    assert all(later - earlier > 0.05 for earlier, later in pairwise(came))
