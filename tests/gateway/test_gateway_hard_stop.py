"""A version whose requests keep failing is held out by the worker at once, until the rollout has changed."""

import asyncio
import time
from collections.abc import Callable

import pytest
from gateway_fakes import REQUEST, STUDENT, FakeSender, FakeUpstream, error, gateway, live, plain, settings

from gateway.attempt import Attempt
from gateway.errors import ConnectFailed
from gateway.hard_stop import AWAY_SECONDS, ERRORS, LOST_ERRORS, LOST_SECONDS, WINDOW, HardStop
from gateway.routes import Callee
from gateway.upstream import Target
from router import Arm, EventKind, Events, Rollout, Snapshot

SEEN = Snapshot(rollouts={}, endpoints={STUDENT: "http://student"})


def hard_stop(monotonic: Callable[[], float] = time.monotonic) -> tuple[HardStop, FakeSender]:
    sender = FakeSender()
    return HardStop(sender, Events(), clock=lambda: 5.0, monotonic=monotonic), sender


def test_ten_errors_in_the_last_twenty_hold_a_version_out_and_tell_the_promoter_once() -> None:
    stop, sender = hard_stop()
    for number in range(WINDOW):
        stop.count("support", STUDENT, 1, failed=number % 2 == 0)
        assert (STUDENT in stop.ready(SEEN, live(1))) is (number < 2 * ERRORS - 2)
    stop.count("support", STUDENT, 1, failed=True)
    (told,) = sender.happened
    assert (told.event.kind, told.event.version, told.event.at) == (EventKind.HARD_STOP, STUDENT, 5.0)
    assert told.event.data == {"errors": ERRORS, "window": WINDOW, "revision": 1}


def test_nine_errors_in_any_twenty_are_borne() -> None:
    stop, sender = hard_stop()
    for number in range(10 * WINDOW):
        stop.count("support", STUDENT, 1, failed=number % WINDOW < ERRORS - 1)
    assert STUDENT in stop.ready(SEEN, live(1))
    assert sender.happened == []


def test_a_new_revision_lets_the_version_in_again_with_a_clean_record() -> None:
    stop, sender = hard_stop()
    for _ in range(ERRORS):
        stop.count("support", STUDENT, 1, failed=True)
    assert STUDENT not in stop.ready(SEEN, live(1))
    assert STUDENT in stop.ready(SEEN, live(2))
    for _ in range(ERRORS - 1):
        stop.count("support", STUDENT, 2, failed=True)
    assert STUDENT in stop.ready(SEEN, live(2))
    stop.count("support", STUDENT, 2, failed=True)
    assert STUDENT not in stop.ready(SEEN, live(2))
    assert len({told.event.id for told in sender.happened}) == 2


def fail(stop: HardStop, revision: int, times: int = ERRORS) -> None:
    for _ in range(times):
        stop.count("support", STUDENT, revision, failed=True)


def outcome(stop: HardStop, error: str | None, *, began: float, ended: float) -> bool:
    """A call that ends; whether it was in flight when another was lost."""
    attempt = Attempt(Callee(arm=Arm.STUDENT, target=Target("http://student", 1.0), timeout=1.0, version=STUDENT))
    attempt.began, attempt.total_ms, attempt.error = began, (ended - began) * 1000.0, error
    stop.over(attempt)
    if not attempt.along:
        stop.count("support", STUDENT, 1, failed=error is not None)
    return attempt.along


@pytest.mark.parametrize("error", LOST_ERRORS)
def test_what_one_end_of_a_process_takes_with_it_counts_once(error: str) -> None:
    now = [0.0]
    stop, sender = hard_stop(lambda: now[0])
    assert not outcome(stop, error, began=1.0, ended=2.0)
    for _ in range(3 * WINDOW):
        assert outcome(stop, error, began=1.9, ended=2.1)
        assert outcome(stop, error, began=0.0, ended=2.0 + LOST_SECONDS - 0.1)
    now[0] += AWAY_SECONDS
    assert STUDENT in stop.ready(SEEN, live(1))
    assert sender.happened == []
    assert not outcome(stop, error, began=1.9, ended=2.0 + LOST_SECONDS), "of another end"
    for number in range(ERRORS - 2):  # each began when the one before was lost
        now[0] += AWAY_SECONDS
        assert STUDENT in stop.ready(SEEN, live(1))
        assert not outcome(stop, error, began=10.0 + number, ended=11.0 + number)
    now[0] += AWAY_SECONDS
    assert STUDENT not in stop.ready(SEEN, live(1))


@pytest.mark.parametrize("error", [None, "timeout", "http_500"])
def test_what_was_in_flight_and_not_lost_with_it_counts(error: str | None) -> None:
    stop, _ = hard_stop()
    assert not outcome(stop, ConnectFailed.constant, began=1.0, ended=2.0)
    assert not outcome(stop, error, began=1.9, ended=2.1)


def test_a_full_queue_now_and_then_hides_no_good_answers() -> None:
    """It refuses at once, and its answers take long: each is in flight when another request is refused."""
    stop, _ = hard_stop()
    for number in range(400):
        at = 0.1 * number
        if number % 20 == 0:
            assert not outcome(stop, "http_503", began=at, ended=at + 0.01)
        else:
            assert not outcome(stop, None, began=at - 10.0, ended=at)
    assert STUDENT in stop.ready(SEEN, live(1))


def test_failures_that_no_end_of_a_process_explains_count_one_by_one_also_at_once() -> None:
    stop, _ = hard_stop()
    for _ in range(ERRORS):
        assert not outcome(stop, "timeout", began=1.0, ended=2.0)
    assert STUDENT not in stop.ready(SEEN, live(1))


def test_a_stop_that_the_sender_had_no_room_for_is_told_as_soon_as_it_has() -> None:
    stop, sender = hard_stop()
    sender.full = True
    fail(stop, 1)
    assert STUDENT not in stop.ready(SEEN, live(1))
    assert sender.happened == []
    sender.full = False
    assert STUDENT not in stop.ready(SEEN, live(1))
    stop.count("support", "another", 1, failed=False)
    assert [told.event.id for told in sender.happened] == [f"hard_stop:{STUDENT}:1"]
    again, sender = hard_stop()
    sender.full = True
    fail(again, 1)
    sender.full = False
    again.count("support", "another", 1, failed=False)
    assert len(sender.happened) == 1


def test_failures_that_end_after_the_rollout_has_changed_stop_the_version_under_the_revision_in_force() -> None:
    stop, sender = hard_stop()
    stop.ready(SEEN, live(1))
    assert STUDENT in stop.ready(SEEN, live(2))
    fail(stop, 1)
    assert STUDENT not in stop.ready(SEEN, live(2))
    assert [told.event.data["revision"] for told in sender.happened] == [2]
    assert STUDENT in stop.ready(SEEN, live(3))


def test_late_failures_of_a_time_before_count_for_nothing_and_hide_no_later_ones() -> None:
    stop, sender = hard_stop()
    stop.ready(SEEN, live(1))
    fail(stop, 1)
    assert STUDENT in stop.ready(SEEN, live(2))
    fail(stop, 1)
    assert STUDENT in stop.ready(SEEN, live(2))
    fail(stop, 2, ERRORS - 1)
    stop.count("support", STUDENT, 1, failed=False)
    assert STUDENT in stop.ready(SEEN, live(2))
    fail(stop, 2, 1)
    fail(stop, 1)
    assert STUDENT not in stop.ready(SEEN, live(2))
    assert [told.event.data["revision"] for told in sender.happened] == [1, 2]


def test_a_version_that_comes_back_into_the_rollout_starts_with_a_clean_record() -> None:
    stop, sender = hard_stop()
    stop.ready(SEEN, live(1))
    fail(stop, 1, ERRORS - 1)
    stop.ready(SEEN, Rollout(route="support", revision=2))
    stop.ready(SEEN, live(3))
    fail(stop, 1)
    fail(stop, 3, ERRORS - 1)
    assert STUDENT in stop.ready(SEEN, live(3))
    assert sender.happened == []


@pytest.mark.parametrize("error", [ConnectFailed.constant, "http_404"])
def test_a_version_that_is_not_there_is_left_alone_for_a_moment_and_stopped_when_it_stays_away(error: str) -> None:
    now = [0.0]
    stop, sender = hard_stop(lambda: now[0])
    for number in range(1, ERRORS + 1):
        assert STUDENT in stop.ready(SEEN, live(1))
        assert sender.happened == []
        outcome(stop, error, began=now[0], ended=now[0])
        assert STUDENT not in stop.ready(SEEN, live(1))
        now[0] = number * AWAY_SECONDS
    assert STUDENT not in stop.ready(SEEN, live(1))
    assert [told.event.kind for told in sender.happened] == [EventKind.HARD_STOP]


def test_a_version_that_was_away_is_tried_by_one_call_at_a_time_until_it_answers() -> None:
    now = [0.0]
    stop, _ = hard_stop(lambda: now[0])
    outcome(stop, ConnectFailed.constant, began=0.0, ended=0.0)
    now[0] = AWAY_SECONDS
    assert STUDENT in stop.ready(SEEN, live(1))
    stop.calling(STUDENT)
    assert STUDENT not in stop.ready(SEEN, live(1))
    now[0] = 2 * AWAY_SECONDS  # whoever takes so long may never answer
    assert STUDENT in stop.ready(SEEN, live(1))
    stop.calling(STUDENT)
    stop.answers(STUDENT)
    stop.calling(STUDENT)
    assert STUDENT in stop.ready(SEEN, live(1))


async def test_an_engine_that_is_not_there_is_asked_once_a_moment(teacher: FakeUpstream, student: FakeUpstream) -> None:
    student.will(error(404))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(3), url=student.url)
        for _ in range(5):
            async with running.post(REQUEST) as got:
                assert (got.status, got.headers["x-retort-served-by"]) == (200, "teacher")
        assert len(student.asked) == 1


async def test_an_engine_that_starts_and_refuses_slowly_costs_one_call_at_a_time_and_is_one_failure_to_the_log(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(404, delay=1.0))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(3), url=student.url)

        async def ask() -> None:
            async with running.post(REQUEST) as got:
                assert (got.status, got.headers["x-retort-served-by"]) == (200, "teacher")

        await asyncio.gather(*(ask() for _ in range(8)))  # in flight when the first is refused
        assert len(student.asked) == 8
        failed = [call for n in range(8) for call in (await running.sender.exchange(n))[0].failed]
        assert sorted(call.along for call in failed) == [False] + [True] * 7
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.gather(*(ask() for _ in range(8)))
        assert len(student.asked) == 9


async def test_rescued_failures_stop_the_student_and_no_user_sees_one(
    teacher: FakeUpstream, student: FakeUpstream
) -> None:
    student.will(error(500))
    async with gateway(settings(teacher.url)) as running:
        await running.roll_out(live(3), url=student.url)
        for _ in range(ERRORS + 5):
            async with running.post(REQUEST) as got:
                assert (got.status, got.headers["x-retort-served-by"]) == (200, "teacher")
        assert len(student.asked) == ERRORS
        (told,) = running.sender.happened
        assert told.event.data["revision"] == 3
        assert running.events("gateway.hard_stop") == [{"route": "support", "version": STUDENT}]
        student.will(plain("well again"))
        await running.roll_out(live(4), url=student.url)
        async with running.post(REQUEST) as got:
            assert got.headers["x-retort-served-by"] == STUDENT
