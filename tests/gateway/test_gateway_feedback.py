"""What clients report of answers goes to the collector, and what is wrong with a report is said."""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from gateway_fakes import REQUEST, FakeUpstream, Running, gateway, settings
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.feedback import MAX_BYTES, parse_report
from router import Config, parse

ID = "req_0123456789abcdef01234567"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def send(running: Running, body: bytes | dict[str, Any], method: str = "POST") -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return running.client.request(method, f"{running.url}/feedback", data=data)


def two_routes(teacher: str) -> Config:
    return parse(
        f"""
upstreams: {{one: {{base_url: "{teacher}", api_key: sk, distillation_allowed: true}}}}
routes:
  support: {{claims: [gpt-4o], teachers: [one/gpt-4o]}}
  other: {{teachers: [one/gpt-4o]}}
""",
        {},
    )


async def test_feedback_on_an_answer_is_accepted_and_handed_on_with_the_truth_as_its_body(
    teacher: FakeUpstream,
) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with running.post(REQUEST) as got:
            request_id = got.headers["x-retort-request-id"]
        async with send(running, {"request_id": request_id, "outcome": 0.25, "truth": "grün"}) as got:
            assert (got.status, await got.json()) == (202, {"accepted": True})
        assert running.events("gateway.feedback") == [{"outcome": "accepted"}]
        ((feedback, body),) = running.sender.feedback
    assert (feedback.route, feedback.request_id, feedback.outcome) == ("support", request_id, 0.25)
    assert (body, feedback.truth_bytes) == ("grün".encode(), 5)
    assert feedback.at > 1_700_000_000


YES, NO = hashlib.sha256(b"sk-yes").hexdigest(), hashlib.sha256(b"sk-no").hexdigest()


@pytest.mark.parametrize(
    ("capture", "headers", "kept"),
    [
        ({}, {}, True),
        ({}, {"x-retort-consent": "no"}, False),
        ({"right_answers": False}, {"x-retort-consent": "yes"}, False),
        ({"rate": 0.0}, {"x-retort-consent": "yes"}, False),
        ({"consent": "opt-in"}, {}, False),
        ({"consent": "opt-in"}, {"x-retort-consent": "yes"}, True),
        ({"consent": "opt-in", "consent_keys": {"yes": [YES]}}, {"authorization": "Bearer sk-yes"}, True),
        ({"consent_keys": {"no": [NO]}}, {"authorization": "Bearer sk-no", "x-retort-consent": "yes"}, False),
    ],
)
async def test_a_right_answer_may_be_kept_where_its_request_might(
    teacher: FakeUpstream, capture: dict[str, Any], headers: dict[str, str], kept: bool
) -> None:
    async with gateway(settings(teacher.url, route=f"capture: {json.dumps(capture)}")) as running:
        data = json.dumps({"request_id": ID, "truth": "x"}).encode()
        async with running.client.post(f"{running.url}/feedback", data=data, headers=headers) as got:
            assert got.status == 202
        ((feedback, body),) = running.sender.feedback
    assert (feedback.capture, body) == (kept, b"x")


async def test_of_a_route_that_keeps_some_requests_the_same_are_drawn(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url, route="capture: {rate: 0.5}")) as running:
        for _ in range(40):
            async with running.post(REQUEST) as got:
                request_id = got.headers["x-retort-request-id"]
            async with send(running, {"request_id": request_id, "truth": "x"}) as got:
                assert got.status == 202
        exchanges = [(await running.sender.exchange(number))[0] for number in range(40)]
        captured = {exchange.id: exchange.capture for exchange in exchanges}
        reported = {feedback.request_id: feedback.capture for feedback, _ in running.sender.feedback}
    assert reported == captured
    assert set(reported.values()) == {True, False}


@pytest.mark.parametrize(("said", "value"), [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (0.5, 0.5)])
async def test_an_outcome_is_a_number_or_a_boolean(teacher: FakeUpstream, said: Any, value: float) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with send(running, {"request_id": ID, "outcome": said}) as got:
            assert got.status == 202
        ((feedback, body),) = running.sender.feedback
    assert (feedback.outcome, feedback.truth_bytes, body) == (value, 0, b"")
    assert type(feedback.outcome) is float


async def test_each_report_has_an_id_of_its_own(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        for _ in range(2):
            async with send(running, {"request_id": ID, "truth": "x"}) as got:
                assert got.status == 202
        first, second = (feedback for feedback, _ in running.sender.feedback)
    assert (first.outcome, first.id == second.id, len(first.id)) == (None, False, 27)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "not a JSON object"),
        (b"[]", None, "not a JSON object"),
        (b"{", None, "not a JSON object"),
        (b"[" * 50_000, None, "not a JSON object"),
        (b'{"request_id": "' + ID.encode() + b'", "truth": "\\ud800"}', None, "not a JSON object"),
        ({"outcome": 1}, "request_id", '"request_id" is missing; it is the x-retort-request-id header'),
        ({"request_id": 3, "outcome": 1}, "request_id", "req_ and 24 hex digits"),
        ({"request_id": "chatcmpl-1", "outcome": 1}, "request_id", "req_ and 24 hex digits"),
        ({"request_id": ID + "\n", "outcome": 1}, "request_id", "req_ and 24 hex digits"),
        ({"request_id": ID, "outcome": 1.01}, "outcome", "from 0 (bad) to 1 (good)"),
        ({"request_id": ID, "outcome": -0.01}, "outcome", "from 0 (bad) to 1 (good)"),
        ({"request_id": ID, "outcome": "good"}, "outcome", "from 0 (bad) to 1 (good)"),
        ({"request_id": ID, "outcome": 10**30}, "outcome", "from 0 (bad) to 1 (good)"),
        ({"request_id": ID, "truth": ""}, "truth", "that is not empty"),
        ({"request_id": ID, "truth": ["a"]}, "truth", "must be a string"),
        ({"request_id": ID}, "outcome", 'give "outcome", "truth" or both'),
        ({"request_id": ID, "outcome": None, "truth": None}, "outcome", 'give "outcome", "truth" or both'),
        ({"request_id": ID, "outcome": 1, "truht": "x"}, None, "no key 'truht'; it has: request_id, outcome, truth"),
        ({"request_id": ID, "outcome": 1, "k" * 200: 1}, None, "k" * 100 + "..."),
        ({"request_id": ID, "outcome": 1, "model": 3}, "model", "must be a string"),
    ],
)
async def test_what_is_wrong_with_a_report_is_said_with_400(
    teacher: FakeUpstream, body: Any, param: str | None, words: str
) -> None:
    async with gateway(settings(teacher.url)) as running:
        async with send(running, body) as got:
            problem = (await got.json())["error"]
            assert (got.status, problem["type"], problem["param"]) == (400, "invalid_request_error", param)
        assert words in problem["message"]
        assert running.events("gateway.feedback") == [{"outcome": "refused"}]
        assert running.sender.frames == []


async def test_the_model_may_be_left_out_only_where_there_is_one_route(teacher: FakeUpstream) -> None:
    async with gateway(two_routes(teacher.url)) as running:
        async with send(running, {"request_id": ID, "outcome": 1}) as got:
            problem = (await got.json())["error"]
            assert (got.status, problem["param"]) == (400, "model")
            assert "there are several routes; known are: gpt-4o, other, support" in problem["message"]
        async with send(running, {"request_id": ID, "outcome": 1, "model": "gpt-9"}) as got:
            problem = (await got.json())["error"]
            assert (got.status, problem["code"], problem["param"]) == (404, "model_not_found", "model")
        for model in ("other", "gpt-4o", "support"):
            async with send(running, {"request_id": ID, "outcome": 1, "model": model}) as got:
                assert got.status == 202
        assert [feedback.route for feedback, _ in running.sender.feedback] == ["other", "support", "support"]


async def test_a_report_too_large_is_refused_with_413_and_the_largest_is_taken(teacher: FakeUpstream) -> None:
    whole = json.dumps({"request_id": ID, "truth": "x"}).encode()
    padding = MAX_BYTES - len(whole)
    async with gateway(settings(teacher.url)) as running:
        async with send(running, whole + b" " * (padding + 1)) as got:
            assert (got.status, (await got.json())["error"]["code"]) == (413, "request_too_large")
        async with send(running, whole + b" " * padding) as got:
            assert got.status == 202


async def test_a_full_buffer_is_told_and_is_no_acceptance(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running:
        running.sender.full = True
        async with send(running, {"request_id": ID, "outcome": 1}) as got:
            problem = (await got.json())["error"]
            assert (got.status, problem["type"], problem["code"]) == (503, "server_error", "overloaded")
        assert running.events("gateway.feedback") == [{"outcome": "refused"}]


async def test_feedback_answers_to_post_alone(teacher: FakeUpstream) -> None:
    async with gateway(settings(teacher.url)) as running, send(running, b"", method="GET") as got:
        assert (got.status, (await got.json())["error"]["code"]) == (405, "method_not_allowed")


@given(st.dictionaries(st.sampled_from(["request_id", "outcome", "truth", "model"]), ANY_JSON | st.just(ID)))
def test_any_report_is_taken_whole_or_refused(top: dict[str, Any]) -> None:
    try:
        report = parse_report(msgspec.json.encode(top))
    except InvalidRequest:
        return
    assert report.request_id == ID
    assert report.outcome is not None or report.truth
    assert report.outcome is None or 0.0 <= report.outcome <= 1.0
