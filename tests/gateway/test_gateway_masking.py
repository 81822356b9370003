"""On a route that masks, teachers get surrogates and clients their own words; who can't be masked meets no teacher."""

import asyncio
import json
from typing import Any

import pytest
from gateway_fakes import (
    DONE,
    REQUEST,
    ROLE,
    STREAM,
    STUDENT,
    FakeUpstream,
    Running,
    completion,
    drop,
    error,
    event,
    gateway,
    live,
    plain,
    settings,
    shadowing,
    stream,
)

from collector import CollectorUnavailable, ScrubError
from router import Config

PAIRS = {"Brandi": "Annegret", "nora.362@example.com": 'zoe"@acme.org'}
ASKED: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": f"I am Annegret, {PAIRS['nora.362@example.com']}"}],
}
SAID = "Dear Brandi, is nora.362@example.com right?"
MEANT = 'Dear Annegret, is zoe"@acme.org right?'
MASKS = "capture: {mask_teachers: true}"
RARELY = "quality: {audit_rate: 1.0e-12}"


def masks(teacher: str, *more: str, **options: Any) -> Config:
    lines = [MASKS, *(more or (RARELY,))]
    return settings(teacher, route="\n    ".join(lines), **options)


def only_surrogates(fake: FakeUpstream) -> None:
    assert fake.asked
    for asked in fake.asked:
        assert asked.json["messages"][0]["content"] == "I am Brandi, nora.362@example.com"
        assert b"Annegret" not in asked.body


def said(came: bytes) -> str:
    chunks = [json.loads(line[6:]) for line in came.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def letters(text: str, size: int = 1) -> list[bytes]:
    pieces = [event({"content": text[at : at + size]}) for at in range(0, len(text), size)]
    return [ROLE, *pieces, event({}, "stop"), DONE]


async def readiness(running: Running) -> int:
    async with running.client.get(f"{running.url.removesuffix('/v1')}/readyz") as got:
        return got.status


def failing(running: Running, error: Exception) -> None:
    running.masker.fails = error


async def test_a_worker_is_ready_once_somebody_masks_and_stays_so(teacher: FakeUpstream) -> None:
    async with gateway(masks(teacher.url)) as running:
        failing(running, CollectorUnavailable("nobody masks"))
        assert await readiness(running) == 503
        running.masker.fails = None
        assert await readiness(running) == 200
        failing(running, CollectorUnavailable("nobody masks"))
        assert await readiness(running) == 200
    async with gateway(settings(teacher.url)) as running:
        failing(running, CollectorUnavailable("nobody masks"))
        assert await readiness(running) == 200


async def test_the_teacher_gets_surrogates_and_the_client_and_capture_the_true_words(teacher: FakeUpstream) -> None:
    teacher.will(plain(SAID))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post(ASKED, x_retort_subject="Annegret", x_retort_session="Annegret") as got:
            body = await got.read()
            assert int(got.headers["content-length"]) == len(body)
        exchange, bodies = await running.sender.exchange()
        (masked,) = running.events("gateway.masked")
    assert json.loads(body)["choices"][0]["message"]["content"] == MEANT
    assert body.startswith(completion("")[:60])  # odd spacing and all
    assert bodies == (json.dumps(ASKED).encode(), body)
    only_surrogates(teacher)
    assert not any("Annegret" in value for value in teacher.asked[0].headers.values())
    assert running.masker.asked == [("support", exchange.cluster, bodies[0])]
    assert (masked["route"], masked["outcome"]) == ("support", "ok")


async def test_a_route_that_does_not_mask_asks_nobody(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running, running.post(ASKED) as got:
        assert await got.read() == completion("hello")
    assert running.masker.asked == []
    assert teacher.asked[0].json == ASKED


async def test_an_answer_without_a_surrogate_is_passed_on_byte_for_byte(teacher: FakeUpstream) -> None:
    teacher.will(plain("hello"), stream(STREAM))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post(ASKED) as got:
            assert await got.read() == completion("hello")
        async with running.post({**ASKED, "stream": True}) as got:
            assert await got.read() == b"".join(STREAM)


async def test_a_fallback_gets_the_same_masked_request_under_its_own_model(
    teacher: FakeUpstream, second: FakeUpstream
) -> None:
    teacher.will(drop())
    second.will(plain(SAID))
    async with gateway(masks(teacher.url, second=second.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post(ASKED) as got:
            assert json.loads(await got.read())["choices"][0]["message"]["content"] == MEANT
    only_surrogates(teacher)
    only_surrogates(second)
    assert second.asked[0].json["model"] == "other-model"
    assert len(running.masker.asked) == 1


@pytest.mark.parametrize("status", [400, 429])
async def test_a_teachers_refusal_is_turned_back_as_well(teacher: FakeUpstream, status: int) -> None:
    teacher.will(error(status, SAID))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post(ASKED) as got:
            assert got.status == status
            assert (await got.json())["error"]["message"] == MEANT


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_a_stream_is_turned_back_wherever_its_deltas_are_cut(teacher: FakeUpstream, size: int) -> None:
    teacher.will(stream(letters(SAID, size)))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post({**ASKED, "stream": True}) as got:
            came = await got.read()
        exchange, bodies = await running.sender.exchange()
    assert said(came) == MEANT
    assert came.endswith(event({}, "stop") + DONE)
    assert (bodies[1], exchange.served.error) == (came, None)
    only_surrogates(teacher)


async def test_a_stream_that_ends_in_a_surrogate_without_a_marker_is_whole(teacher: FakeUpstream) -> None:
    unended = letters("I am Brandi")[:-1]
    teacher.will(stream([*unended[:-1], unended[-1].rstrip()]))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post({**ASKED, "stream": True}) as got:
            came = await got.read()
        exchange, bodies = await running.sender.exchange()
    assert said(came) == "I am Annegret"
    assert (bodies[1], exchange.served.error) == (came, None)


async def test_a_stream_that_breaks_ends_with_an_error_event(teacher: FakeUpstream) -> None:
    teacher.will(stream(letters(SAID)[:20], end="cut"))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        async with running.post({**ASKED, "stream": True}) as got:
            came = await got.read()
        exchange, _ = await running.sender.exchange()
    assert said(came) == "Dear Annegret, is "
    assert b"upstream_cut" in came
    assert exchange.served.error == "cut"


async def test_a_student_gets_the_true_words_and_its_audit_is_masked(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine"))
    teacher.will(plain(SAID))
    async with gateway(masks(teacher.url)) as running:
        running.masker.pairs = PAIRS
        await running.roll_out(live(audit_all=True), url=student.url)
        async with running.post(ASKED) as got:
            assert await got.read() == completion("mine")
        _, bodies = await running.sender.exchange()
    assert student.asked[0].json == ASKED
    only_surrogates(teacher)
    assert json.loads(bodies[2])["choices"][0]["message"]["content"] == MEANT


async def test_a_shadowed_request_masks_the_teachers_first_and_second_answer(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine"))
    teacher.will(stream(letters(SAID)))
    async with gateway(masks(teacher.url, "quality: {reference: self, audit_rate: 1.0}")) as running:
        running.masker.pairs = PAIRS
        await running.roll_out(shadowing(), url=student.url)
        async with running.post({**ASKED, "stream": True}, idempotency_key="k") as got:
            assert said(await got.read()) == MEANT
        _, bodies = await running.sender.exchange()
    assert student.asked[0].json["messages"] == ASKED["messages"]
    only_surrogates(teacher)
    assert [asked.headers.get("idempotency-key") for asked in teacher.asked] == ["k", None]
    assert said(bodies[3]) == MEANT
    assert len(running.masker.asked) == 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_where_nothing_can_be_masked_no_teacher_is_called_and_the_client_may_try_again(
    teacher: FakeUpstream, second: FakeUpstream, streaming: bool
) -> None:
    async with gateway(masks(teacher.url, second=second.url)) as running:
        failing(running, CollectorUnavailable())
        async with running.post({**ASKED, "stream": streaming}) as got:
            found = await got.json()
            assert (got.status, found["error"]["code"]) == (503, "masking_unavailable")
        exchange, _ = await running.sender.exchange()
        assert [fields["outcome"] for fields in running.events("gateway.masked")] == ["masking_unavailable"]
        assert running.events("gateway.fallback") == []
    assert teacher.asked + second.asked == []
    assert (exchange.served.error, exchange.served.status) == ("masking_unavailable", None)


async def test_what_can_not_be_masked_is_the_clients_error(teacher: FakeUpstream) -> None:
    async with gateway(masks(teacher.url)) as running:
        failing(running, ScrubError("it holds an image"))
        async with running.post(ASKED) as got:
            found = (await got.json())["error"]
            assert (got.status, found["code"], found["type"]) == (400, "unmaskable", "invalid_request_error")
            assert "it holds an image" in found["message"]
    assert teacher.asked == []


async def test_a_student_that_answers_alone_needs_no_masking_and_its_audit_fails_closed(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(plain("mine"))
    async with gateway(masks(teacher.url)) as running:
        failing(running, CollectorUnavailable())
        await running.roll_out(live(), url=student.url)
        async with running.post(ASKED) as got:
            assert await got.read() == completion("mine")
        assert running.masker.asked == []
        await running.roll_out(live(audit_all=True), url=student.url)
        async with running.post(ASKED) as got:
            assert await got.read() == completion("mine")
        exchange, _ = await running.sender.exchange(1)
    assert [call.error for call in exchange.shadows] == ["masking_unavailable"]
    assert teacher.asked == []


async def test_a_student_that_fails_is_not_rescued_by_an_unmasked_request(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(500))
    async with gateway(masks(teacher.url)) as running:
        failing(running, CollectorUnavailable())
        await running.roll_out(live(), url=student.url)
        async with running.post(ASKED) as got:
            assert got.status == 503
        exchange, _ = await running.sender.exchange()
    assert [call.version for call in exchange.failed] == [STUDENT]
    assert teacher.asked == []


async def test_a_client_that_leaves_while_its_request_is_masked_meets_no_teacher(teacher: FakeUpstream) -> None:
    async with gateway(masks(teacher.url)) as running:
        running.masker.slow = 60.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await running.post(REQUEST)
        exchange, _ = await running.sender.exchange()
        assert [fields["outcome"] for fields in running.events("gateway.masked")] == ["cancelled"]
    assert exchange.served.error == "cancelled"
    assert teacher.asked == []
