"""What one exchange says of a student."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from collector_fakes import answer, call, decision, exchange

from collector import Exchange
from collector.observe import Answered, owes_a_pair
from collector.observe import observations as observed
from collector.pairs import pairs, settled
from collector.parse import completion
from router import (
    Arm,
    Asked,
    EventKind,
    Metric,
    Observation,
    RouteEvent,
    RoutePolicy,
    Stage,
    decode_evidence,
    differences,
    encode_evidence,
    recompute,
)

POLICY = RoutePolicy.model_validate({"teachers": ["openai/gpt-4o"], "student": {}})
TEACHER = (call(Arm.TEACHER, total_ms=600.0, ttft_ms=300.0), completion(answer('{"a": 1}')))
GOOD = (call(Arm.STUDENT, confidence=0.9), completion(answer('{"a":1}')))
WRONG = (call(Arm.STUDENT), completion(answer('{"a":2}')))
FAILED = (call(Arm.STUDENT, status=500, error="http_500"), None)
BY_STUDENT = decision(arm=Arm.STUDENT, version="v1", propensity=0.25)


def observations(seen: Exchange, answers: Sequence[Answered], policy: RoutePolicy) -> list[Observation]:
    """All that an exchange says, quality too."""
    compared = [settled(pair, policy.quality) for pair in pairs(seen, answers, policy, Asked())]
    return observed(seen, answers, policy) + [one for one in compared if one is not None]


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


def test_what_was_lost_with_another_call_says_so() -> None:
    lost = (call(Arm.STUDENT, status=None, error="connect", along=True), None)
    found = observations(exchange(served=TEACHER[0], failed=[lost[0]], decision=BY_STUDENT), [TEACHER], POLICY)
    assert {one.metric: one.along for one in found} == {Metric.ERROR: True, Metric.LATENCY: True}
    assert {decode_evidence(encode_evidence(one)) == one for one in found} == {True}


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


@pytest.mark.parametrize(
    ("stream", "ttft_ms", "total_ms", "expected"),
    [
        (False, None, 800.0, {}),  # the SLO: it might still have come in time
        (False, None, 800.1, {Metric.LATENCY: (math.inf, None)}),
        (True, None, 800.1, {Metric.TTFT: (math.inf, None)}),
        (True, None, 20.0, {}),
        (True, 300.0, 5000.0, {}),  # it had begun; the rest was not wanted
    ],
)
def test_a_client_that_left_says_that_the_slo_was_missed_if_it_was_and_nothing_else(
    stream: bool, ttft_ms: float | None, total_ms: float, expected: dict[Metric, tuple[float, None]]
) -> None:
    left = (call(Arm.STUDENT, error="cancelled", ttft_ms=ttft_ms, total_ms=total_ms), None)
    seen = exchange(served=left[0], decision=BY_STUDENT, stream=stream)
    found = observations(seen, [left], POLICY)
    assert values(found) == expected
    assert {o.arm for o in found} <= {Arm.STUDENT}


def test_a_shadow_that_a_stop_cut_off_says_nothing_however_long_it_took() -> None:
    cut = (call(Arm.STUDENT, error="cancelled", ttft_ms=None, total_ms=60_000.0), None)
    assert observations(exchange(served=TEACHER[0], shadows=[cut[0]]), [TEACHER, cut], POLICY) == []


def test_a_live_student_that_hangs_until_its_clients_give_up_is_rolled_back() -> None:
    """Every fifth call: none ends with an error, and no answer that came was slow."""
    kinds: dict[EventKind, dict[str, Any]] = {
        EventKind.POLICY: {"policy": POLICY.model_dump(mode="json")},
        EventKind.CANDIDATE: {"gate": "passed"},
        EventKind.READY: {},
        EventKind.OPERATOR: {"action": "promote"},
    }
    log: list[bytes] = [
        encode_evidence(RouteEvent(id=kind, at=1000.0, route="support", kind=kind, version="v1", data=data))
        for kind, data in kinds.items()
    ]
    hung = (call(Arm.STUDENT, error="cancelled", status=None, ttft_ms=None, total_ms=10_000.0), None)
    for number in range(1000):
        served = hung if number % 5 == 0 else GOOD
        log += map(
            encode_evidence, observations(exchange(number, served=served[0], decision=BY_STUDENT), [served], POLICY)
        )
        if number % 50 == 49:
            tick = RouteEvent(id=f"tick{number}", at=1000.0 + number, route="support", kind=EventKind.TICK)
            log.append(encode_evidence(tick))
    records = [(offset, decode_evidence(data)) for offset, data in enumerate(log)]
    decided = recompute("support", records)
    assert [(d.after, d.cause) for d in decided][-1] == (Stage.ROLLED_BACK, "slo_alarm")
    assert differences("support", records, decided) == []


@pytest.mark.parametrize("looped", ["[" * 1200, "[" * 600 + "]" * 600, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_an_answer_nested_without_end_is_a_wrong_answer_of_a_call_that_succeeded(looped: str) -> None:
    looping = (call(Arm.STUDENT), completion(answer(looped)))
    found = observations(exchange(served=TEACHER[0], shadows=[looping[0]]), [TEACHER, looping], POLICY)
    assert values(found) == {Metric.QUALITY: (0.0, 1.0), Metric.LATENCY: (20.0, 600.0), Metric.ERROR: (0.0, None)}


def test_a_reference_nested_too_deeply_makes_no_pair() -> None:
    deep = (TEACHER[0], completion(answer("[" * 600 + "]" * 600)))
    found = observations(exchange(served=TEACHER[0], shadows=[GOOD[0]]), [deep, GOOD], POLICY)
    assert values(found) == {Metric.LATENCY: (20.0, 600.0), Metric.ERROR: (0.0, None)}


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


DEFERRED = (call(Arm.STUDENT, confidence=0.4, body_bytes=9, deferred=True), completion(answer('{"a":1}')))
UNFINISHED = (call(Arm.STUDENT, confidence=0.4, deferred=True, total_ms=None), None)


def test_a_deferred_answer_is_no_error_its_latency_is_what_the_client_saw_and_it_makes_a_sure_pair() -> None:
    drawn = decision(arm=Arm.STUDENT, version="v1", propensity=0.25, audited=0.05)
    seen = exchange(served=TEACHER[0], shadows=[DEFERRED[0]], decision=drawn, total_ms=650.0)
    found = observations(seen, [TEACHER, DEFERRED], POLICY)
    assert values(found) == {Metric.ERROR: (0.0, None), Metric.LATENCY: (650.0, None), Metric.QUALITY: (1.0, 1.0)}
    assert {(o.arm, o.deferred, o.confidence, o.propensity, o.inclusion) for o in found} == {
        (Arm.STUDENT, True, 0.4, 0.25, 1.0)
    }


def test_a_stream_that_was_deferred_at_its_beginning_makes_no_pair() -> None:
    seen = exchange(
        served=TEACHER[0], shadows=[UNFINISHED[0]], decision=BY_STUDENT, stream=True, ttft_ms=330.0, total_ms=900.0
    )
    found = observations(seen, [TEACHER, UNFINISHED], POLICY)
    assert values(found) == {Metric.ERROR: (0.0, None), Metric.TTFT: (330.0, None)}
    assert {o.deferred for o in found} == {True}


def test_a_deferred_stream_that_an_audit_read_to_its_end_weighs_as_an_audited_answer() -> None:
    drawn = decision(arm=Arm.STUDENT, version="v1", audited=0.05)
    seen = exchange(
        served=TEACHER[0], shadows=[DEFERRED[0]], decision=drawn, stream=True, ttft_ms=330.0, total_ms=900.0
    )
    (pair,) = [o for o in observations(seen, [TEACHER, DEFERRED], POLICY) if o.metric is Metric.QUALITY]
    assert (pair.inclusion, pair.arm, pair.deferred) == (0.05, Arm.STUDENT, True)


def test_a_deferred_answer_that_can_not_be_read_scores_zero() -> None:
    junk = (DEFERRED[0], None)
    seen = exchange(served=TEACHER[0], shadows=[junk[0]], decision=BY_STUDENT)
    assert values(observations(seen, [TEACHER, junk], POLICY))[Metric.QUALITY] == (0.0, 1.0)


def test_after_a_deferral_the_teachers_failure_is_not_the_students() -> None:
    down = (call(Arm.TEACHER, status=502, error="http_502"), None)
    seen = exchange(served=down[0], shadows=[DEFERRED[0]], decision=BY_STUDENT, total_ms=5000.0)
    assert values(observations(seen, [down, DEFERRED], POLICY)) == {Metric.ERROR: (0.0, None)}


@pytest.mark.parametrize(("total_ms", "expected"), [(800.0, {}), (800.1, {Metric.LATENCY: (math.inf, None)})])
def test_who_leaves_after_a_deferral_has_waited_too_long_if_the_slo_was_missed(
    total_ms: float, expected: dict[Metric, tuple[float, None]]
) -> None:
    left = (call(Arm.TEACHER, error="cancelled", status=None), None)
    seen = exchange(served=left[0], shadows=[DEFERRED[0]], decision=BY_STUDENT, total_ms=total_ms)
    assert values(observations(seen, [left, DEFERRED], POLICY)) == expected


def test_a_pair_says_how_probable_it_was() -> None:
    drawn = decision(arm=Arm.STUDENT, version="v1", audited=0.05)
    audited = exchange(served=GOOD[0], shadows=[TEACHER[0], RIDER[0]], decision=drawn)
    (one, other) = [o for o in observations(audited, [GOOD, TEACHER, RIDER], POLICY) if o.metric is Metric.QUALITY]
    assert (one.version, one.inclusion, one.arm) == ("v1", 0.05, Arm.STUDENT)
    assert (other.version, other.inclusion, other.arm) == ("v2", 0.05, Arm.TEACHER)
    shadowed = exchange(served=TEACHER[0], shadows=[GOOD[0]])
    assert observations(shadowed, [TEACHER, GOOD], POLICY)[-1].inclusion == 1.0


RIDER = (call(Arm.STUDENT, version="v2"), completion(answer('{"a":1}')))
