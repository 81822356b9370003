"""What one exchange says of a student."""

import math

from collector_fakes import answer, call, decision, exchange

from collector.observe import observations, owes_a_pair
from collector.parse import completion
from router import Arm, Metric, Observation, RoutePolicy

POLICY = RoutePolicy.model_validate({"teachers": ["openai/gpt-4o"], "student": {}})
TEACHER = (call(Arm.TEACHER, total_ms=600.0, ttft_ms=300.0), completion(answer('{"a": 1}')))
GOOD = (call(Arm.STUDENT, confidence=0.9), completion(answer('{"a":1}')))
WRONG = (call(Arm.STUDENT), completion(answer('{"a":2}')))
FAILED = (call(Arm.STUDENT, status=500, error="http_500"), None)
BY_STUDENT = decision(arm=Arm.STUDENT, version="v1", propensity=0.25)


def values(found: list[Observation]) -> dict[Metric, tuple[float, float | None]]:
    return {o.metric: (o.value, o.pair_value) for o in found}


def test_a_shadow_pair_yields_quality_latency_and_error() -> None:
    seen = exchange(served=TEACHER[0], shadows=[GOOD[0]])
    found = observations(seen, [TEACHER, GOOD], POLICY)
    assert values(found) == {Metric.QUALITY: (1.0, 1.0), Metric.LATENCY: (20.0, 600.0), Metric.ERROR: (0.0, None)}
    assert {(o.arm, o.version, o.confidence, o.cluster) for o in found} == {(Arm.TEACHER, "v1", 0.9, "c0")}
    assert len({o.id for o in found}) == 3
    assert observations(seen, [TEACHER, GOOD], POLICY) == found


def test_a_wrong_answer_scores_zero() -> None:
    found = observations(exchange(served=TEACHER[0], shadows=[WRONG[0]]), [TEACHER, WRONG], POLICY)
    assert values(found)[Metric.QUALITY] == (0.0, 1.0)


def test_an_unreadable_student_answer_scores_zero_and_an_unreadable_teacher_makes_no_pair() -> None:
    unread = (call(Arm.STUDENT), None)
    found = observations(exchange(served=TEACHER[0], shadows=[unread[0]]), [TEACHER, unread], POLICY)
    assert values(found)[Metric.QUALITY] == (0.0, 1.0)
    silent = (TEACHER[0], None)
    assert Metric.QUALITY not in values(
        observations(exchange(served=TEACHER[0], shadows=[GOOD[0]]), [silent, GOOD], POLICY)
    )


def test_a_failed_shadow_is_an_error_and_endless_latency_but_no_quality() -> None:
    found = observations(exchange(served=TEACHER[0], shadows=[FAILED[0]]), [TEACHER, FAILED], POLICY)
    assert values(found) == {Metric.ERROR: (1.0, None), Metric.LATENCY: (math.inf, 600.0)}


def test_a_student_that_a_fallback_rescued_is_charged_with_the_failure() -> None:
    rescued = exchange(served=TEACHER[0], failed=[FAILED[0]], decision=BY_STUDENT)
    found = observations(rescued, [TEACHER], POLICY)
    assert values(found) == {Metric.ERROR: (1.0, None), Metric.LATENCY: (math.inf, None)}
    assert {(o.arm, o.propensity) for o in found} == {(Arm.STUDENT, 0.25)}


def test_a_request_that_both_arms_refuse_says_nothing_of_the_student() -> None:
    refused = call(Arm.STUDENT, status=400, error="http_400")
    for status, counted in ((400, 0), (422, 0), (200, 2), (502, 2), (401, 2)):
        served = call(Arm.TEACHER, status=status, error=None if status == 200 else f"http_{status}")
        seen = exchange(served=served, failed=[refused], decision=BY_STUDENT)
        assert len(observations(seen, [(served, None)], POLICY)) == counted, status


def test_an_audited_student_answer_is_a_pair() -> None:
    audited = exchange(served=GOOD[0], shadows=[TEACHER[0]], decision=BY_STUDENT)
    found = observations(audited, [GOOD, TEACHER], POLICY)
    assert values(found)[Metric.QUALITY] == (1.0, 1.0)
    assert {o.arm for o in found} == {Arm.STUDENT}


def test_a_stream_is_judged_by_its_first_token() -> None:
    found = observations(exchange(served=TEACHER[0], shadows=[GOOD[0]], stream=True), [TEACHER, GOOD], POLICY)
    assert values(found)[Metric.TTFT] == (10.0, 300.0)
    assert Metric.LATENCY not in values(found)


def test_a_client_that_left_says_nothing_of_the_student() -> None:
    left = (call(Arm.STUDENT, error="cancelled"), None)
    assert observations(exchange(served=left[0], decision=BY_STUDENT), [left], POLICY) == []


def test_the_teacher_alone_says_nothing_of_a_student() -> None:
    assert observations(exchange(served=TEACHER[0]), [TEACHER], POLICY) == []


def test_a_cut_off_reference_is_no_reference() -> None:
    cut = (TEACHER[0], completion(answer('{"a":', finish="length")))
    found = observations(exchange(served=TEACHER[0], shadows=[GOOD[0]]), [cut, GOOD], POLICY)
    assert Metric.QUALITY not in values(found)


def test_a_pair_is_owed_where_the_request_was_eligible_and_the_teacher_answered() -> None:
    broken = call(Arm.TEACHER, error="http_500")
    assert owes_a_pair(exchange(served=TEACHER[0]))
    assert not owes_a_pair(exchange(served=TEACHER[0], decision=decision(eligible=False)))
    assert not owes_a_pair(exchange(served=GOOD[0], shadows=[broken]))
