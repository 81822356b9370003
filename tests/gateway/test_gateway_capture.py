"""What is told of an exchange, and when its texts go along."""

import hashlib
import json

import pytest
from gateway_fakes import REQUEST, FakeUpstream, completion, gateway, plain, reply, settings, shadowing

from gateway.attempt import KEEP_BYTES
from gateway.capture import consent
from router import Arm, CapturePolicy, ConsentKeys


async def test_an_exchange_holds_the_decision_the_times_and_the_raw_bodies(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST, x_retort_session="s1") as got:
            request_id = got.headers["x-retort-request-id"]
        exchange, bodies = await running.sender.exchange()
    assert bodies == (json.dumps(REQUEST).encode(), completion("hello"))
    assert (exchange.request_bytes, exchange.served.body_bytes) == (len(bodies[0]), len(bodies[1]))
    assert (exchange.id, exchange.path, exchange.stream) == (request_id, "/v1/chat/completions", False)
    assert (exchange.decision.route, exchange.decision.arm, exchange.capture) == ("support", Arm.TEACHER, True)
    assert exchange.served.ttft_ms is None
    assert exchange.served.total_ms is not None
    assert 0 < exchange.served.total_ms <= exchange.total_ms
    assert len(exchange.cluster) == 32
    assert exchange.at > 1_700_000_000


async def test_without_consent_neither_text_leaves_the_worker(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST, x_retort_consent="no"):
            pass
        exchange, bodies = await running.sender.exchange()
    assert exchange.capture is False
    assert bodies == (b"", b"")


async def test_an_answer_too_large_to_keep_is_passed_on_but_reported_without_texts(teacher: FakeUpstream) -> None:
    huge = completion("x" * KEEP_BYTES)
    teacher.will(reply(huge))
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST) as got:
            assert await got.read() == huge
        exchange, bodies = await running.sender.exchange()
        assert running.events("gateway.capture_skipped") == [{"route": "support", "reason": "too_large"}]
    assert exchange.capture is False
    assert b"".join(bodies) == b""


async def test_a_full_buffer_costs_the_client_nothing(teacher: FakeUpstream) -> None:
    teacher.will(plain("hello"))
    async with gateway(settings(teacher.url)) as running:
        running.sender.full = True
        async with running.post(REQUEST) as got:
            assert got.status == 200


@pytest.mark.parametrize(
    ("policy", "header", "captured"),
    [
        ("opt-out", None, True),
        ("opt-out", b"yes", True),
        ("opt-out", b"no", False),
        ("opt-out", b" No ", False),
        ("opt-out", b"maybe", True),
        ("opt-in", None, False),
        ("opt-in", b"no", False),
        ("opt-in", b"maybe", False),
        ("opt-in", b"YES", True),
    ],
)
def test_consent_follows_the_header_and_the_policys_default(policy, header: bytes | None, captured: bool) -> None:
    headers = {} if header is None else {b"x-retort-consent": header}
    said = consent(CapturePolicy(consent=policy), "req_1", headers)
    assert (said is not None) is captured
    if captured:
        assert said == ("header" if header in (b"yes", b"YES") else "opt-out")


@pytest.mark.parametrize(
    ("policy", "key", "header", "said"),
    [
        ("opt-out", "no", None, None),
        ("opt-out", "no", b"yes", None),
        ("opt-out", "yes", None, "key"),
        ("opt-out", "yes", b"no", None),
        ("opt-in", "yes", None, "key"),
        ("opt-in", "yes", b"yes", "header"),
        ("opt-in", None, None, None),
        ("opt-out", None, None, "opt-out"),
    ],
)
def test_consent_may_be_a_keys_and_one_no_is_enough(policy, key: str | None, header: bytes | None, said) -> None:
    ours, others = (hashlib.sha256(name).hexdigest() for name in (b"sk-client", b"sk-other"))
    keys = {"yes": [others], "no": [others]} | ({key: [ours]} if key else {})
    headers = {b"authorization": b"Bearer sk-client"} | ({b"x-retort-consent": header} if header else {})
    assert (
        consent(CapturePolicy(consent=policy, consent_keys=ConsentKeys.model_validate(keys)), "req_1", headers) == said
    )


def test_the_rate_draws_by_request_id_and_keeps_its_share() -> None:
    policy = CapturePolicy(rate=0.3)
    drawn = [consent(policy, f"req_{n}", {}) == "opt-out" for n in range(5000)]
    assert drawn == [consent(policy, f"req_{n}", {}) == "opt-out" for n in range(5000)]
    assert 0.27 < sum(drawn) / 5000 < 0.33
    assert all(consent(CapturePolicy(rate=0.0), f"req_{n}", {}) is None for n in range(100))


async def test_the_frame_says_why_it_may_be_kept_and_whose_it_is(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        for headers in ({"x_retort_subject": "jane", "x_retort_consent": "yes"}, {}):
            async with running.post(REQUEST, **headers) as got:
                await got.read()
        first, _ = await running.sender.exchange(0)
        second, _ = await running.sender.exchange(1)
    assert (first.consent, first.subject, second.consent, second.subject) == ("header", "jane", "opt-out", None)
    assert all("x-retort-subject" not in asked.headers for asked in teacher.asked)


async def test_texts_are_spared_while_the_sender_is_crowded_unless_they_are_a_pairs(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.sender.crowded = True
        async with running.post(REQUEST) as got:
            await got.read()
        exchange, bodies = await running.sender.exchange(0)
        assert (exchange.capture, bodies) == (False, (b"", b""))
        assert running.events("gateway.capture_skipped") == [{"route": "support", "reason": "crowded"}]
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST) as got:
            await got.read()
        exchange, bodies = await running.sender.exchange(1)
        assert exchange.capture
        assert all(bodies)


async def test_what_is_skipped_is_counted_once_though_the_exchange_is_spooled_on_the_way(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.sender.spools = running.sender.crowded = True
        await running.roll_out(shadowing(), url=student.url)
        async with running.post(REQUEST) as got:
            await got.read()
        exchange, bodies = await running.sender.exchange(0)
        assert exchange.capture
        assert all(bodies)
        assert len(running.sender.begun) == 1
        assert running.events("gateway.capture_skipped") == []
        async with running.post({**REQUEST, "padding": "x" * KEEP_BYTES}) as got:
            await got.read()
        await running.sender.exchange(1)
        assert running.events("gateway.capture_skipped") == [{"route": "support", "reason": "too_large"}]


async def test_without_consent_there_is_nothing_to_spare_and_nothing_is_counted(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.sender.crowded = True
        async with running.post(REQUEST, x_retort_consent="no") as got:
            await got.read()
        await running.sender.exchange()
        assert running.events("gateway.capture_skipped") == []
