"""Which evidence opens which stage, and which closes it."""

import msgspec
import pytest
from rollout_story import Story

from router import Arm, EventKind, Metric, Stage, batches, decode_state, differences, encode_state, fold, view


def test_a_good_student_goes_from_candidate_to_live_by_evidence_alone() -> None:
    story = Story()
    story.to_live()
    assert story.causes() == ["ready", "quality_and_latency_passed", "step_passed", "errors_passed"]
    assert [d.fraction for d in story.decided] == [0.0, 0.5, pytest.approx(0.97), 0.0]
    assert story.state.live == "v"
    passed = story.decided[1].evidence["tests"]
    assert passed["quality"]["passed"]
    assert passed["latency"]["passed"]
    assert passed["quality"]["log_e"] >= passed["quality"]["log_boundary"]


@pytest.mark.parametrize("first", ["candidate", "ready"])
def test_a_candidate_needs_both_the_gate_and_readiness_in_either_order(first: str) -> None:
    story = Story()
    kinds = [EventKind.CANDIDATE, EventKind.READY]
    for kind in kinds if first == "candidate" else reversed(kinds):
        assert not story.decided
        story.event(kind, "v")
    assert story.stage() is Stage.SHADOW


def test_quality_alone_or_speed_alone_does_not_open_the_canary() -> None:
    slow = Story()
    slow.arrive()
    slow.pairs(400, ms=90.0)
    assert slow.stage() is Stage.SHADOW
    unpaired = Story()
    unpaired.arrive()
    for _ in range(400):
        unpaired.seen(Metric.LATENCY, 10.0, 80.0, arm=Arm.TEACHER)
    assert unpaired.stage() is Stage.SHADOW


def test_no_step_is_taken_before_its_dwell_its_requests_and_its_slo() -> None:
    dwelling = Story(rollout={"steps": [0.5, 1.0], "min_dwell": "1h"})
    dwelling.to_canary()
    dwelling.serves(2000)
    assert (dwelling.stage(), dwelling.state.step) == (Stage.CANARY, 0)
    few = Story(rollout={"steps": [0.5, 1.0], "min_dwell": "0s", "min_requests": 2500})
    few.to_canary()
    few.serves(2000)
    assert few.state.step == 0
    borderline = Story()
    borderline.to_canary()
    for _ in range(200):
        borderline.serves(9)
        borderline.serves(1, ms=500.0)
    assert borderline.state.step == 0
    assert borderline.stage() is Stage.CANARY


def test_a_clock_that_jumps_ahead_is_no_dwell() -> None:
    story = Story(rollout={"steps": [0.5, 1.0], "min_dwell": "1h", "min_requests": 0})
    story.to_canary()
    for _ in range(30):
        story.serves(30)
        story.at += 86400.0
    assert story.state.step == 0
    story.at = 5.0
    story.serves(1000)
    assert story.state.step == 0


def test_the_last_step_waits_for_the_error_test() -> None:
    story = Story(errors={"promote_below": 0.001, "rollback_above": 0.1})
    story.to_canary()
    story.serves(2000)
    assert (story.stage(), story.state.step) == (Stage.CANARY, 1)


def test_a_wrong_student_is_rejected_in_shadow() -> None:
    story = Story()
    story.arrive()
    story.pairs(60, good=False)
    assert story.stage() is Stage.REJECTED
    assert story.causes()[-1] in ("quality_alarm", "quality_inferior")
    assert story.state.challenger is None


def test_a_student_that_can_not_be_decided_ends_with_the_teacher() -> None:
    story = Story()
    story.arrive()
    for _ in range(120):
        story.pairs(1, good=False)
        story.pairs(13)
    assert story.stage() is Stage.REJECTED
    assert story.causes()[-1] in ("quality_too_slow", "quality_undecided", "quality_inferior")


@pytest.mark.parametrize("stage", ["canary", "live"])
@pytest.mark.parametrize(
    ("harm", "causes"),
    [
        ("quality", {"quality_alarm", "quality_drop_alarm"}),
        ("errors", {"error_alarm", "error_rise_alarm"}),
        ("slo", {"slo_alarm"}),
    ],
)
def test_harm_takes_traffic_back(stage: str, harm: str, causes: set[str]) -> None:
    story = Story()
    story.to_canary() if stage == "canary" else story.to_live()
    for _ in range(100):
        if harm == "quality":
            story.pairs(1, good=False)
        else:
            story.serves(1, error=harm == "errors", ms=500.0, every=0.1 if harm == "errors" else 1.0)
    assert story.stage() is Stage.ROLLED_BACK
    assert story.causes()[-1] in causes
    assert (story.state.live, story.state.challenger) == (None, None)


def test_answers_that_are_reported_late_share_one_block() -> None:
    """Eight slow answers of one second, reported after the clock has passed it, are one piece of evidence."""
    story = Story()
    story.to_live()
    story.at += 1.0
    came, blocks = story.at, story.state.guards["v"].slo.n
    story.at = came + 3.0
    story.event(EventKind.TICK)
    story.at = came
    story.serves(8, ms=500.0, every=0.0)
    story.at = came + 5.0
    story.event(EventKind.TICK)
    assert story.state.guards["v"].slo.n - blocks <= 2  # the block before, and this one
    assert story.stage() is Stage.LIVE


def test_a_drop_under_its_own_level_takes_traffic_back_within_the_margin() -> None:
    """Perfect when promoted, 6% wrong now: better than the margin of 20%, and 6 points worse than proven."""
    story = Story(quality={"margin": 0.2})
    story.to_canary()
    for _ in range(2000):
        story.pairs(1, good=False)
        story.pairs(9)
        if story.stage() is Stage.ROLLED_BACK:
            break
    assert story.causes()[-1] == "quality_drop_alarm"


def test_a_hard_stop_rolls_back_unless_it_is_about_an_earlier_time() -> None:
    story = Story()
    story.to_canary()
    story.event(EventKind.HARD_STOP, "v", errors=10, window=20, revision=0)
    assert story.stage() is Stage.CANARY
    story.event(EventKind.HARD_STOP, "v", errors=10, window=20, revision=story.state.revision)
    assert story.stage() is Stage.ROLLED_BACK
    assert story.causes()[-1] == "hard_stop"


def test_a_rolled_back_version_is_promoted_by_hand_with_fresh_detectors_and_a_stale_stop_is_ignored() -> None:
    story = Story()
    story.to_live()
    before = story.state.revision
    story.pairs(100, good=False)
    assert story.stage() is Stage.ROLLED_BACK
    story.operate("promote", "v")
    assert story.state.live == "v"
    assert story.decided[-1].evidence["who"] == "ann"
    assert story.state.guards["v"].quality.n == 0
    story.event(EventKind.HARD_STOP, "v", errors=10, window=20, revision=before)
    assert story.stage() is Stage.LIVE
    story.pairs(100, good=False)
    assert story.stage() is Stage.ROLLED_BACK


def test_challengers_queue_and_a_new_live_one_retires_the_old() -> None:
    story = Story()
    story.to_live("v")
    story.arrive("w")
    story.arrive("x")
    assert (story.stage("w"), story.stage("x")) == (Stage.SHADOW, Stage.CANDIDATE)
    story.pairs(300, version="w")
    story.serves(2000, version="w")
    assert (story.stage("v"), story.stage("w"), story.stage("x")) == (Stage.RETIRED, Stage.LIVE, Stage.SHADOW)


def test_a_bad_challenger_leaves_the_live_one_alone() -> None:
    story = Story()
    story.to_live("v")
    story.arrive("w")
    story.pairs(60, good=False, version="w")
    assert (story.stage("v"), story.stage("w"), story.state.live) == (Stage.LIVE, Stage.REJECTED, "v")


def test_a_pause_stops_moves_up_and_no_alarm() -> None:
    story = Story()
    story.operate("pause")
    story.arrive()
    assert story.stage() is Stage.CANDIDATE
    story.operate("resume")
    assert story.stage() is Stage.SHADOW
    story.operate("pause")
    story.pairs(400)
    assert story.stage() is Stage.SHADOW
    story.pairs(100, good=False)
    assert story.stage() is Stage.REJECTED


def test_a_pin_keeps_a_version_where_it_is_and_no_alarm_away() -> None:
    story = Story()
    story.to_canary()
    story.operate("pin", "v")
    story.serves(2000)
    assert (story.stage(), story.state.step) == (Stage.CANARY, 0)
    story.operate("unpin")
    story.serves(1)
    assert story.state.step == 1
    story.operate("pin", "v")
    story.serves(60, error=True)
    assert story.stage() is Stage.ROLLED_BACK


def test_missing_pairs_are_an_alarm_but_a_quiet_night_is_not() -> None:
    quiet = Story()
    quiet.arrive()
    for _ in range(4000):
        quiet.at += 1.0
        quiet.event(EventKind.TICK, requests={})
    assert quiet.stage() is Stage.SHADOW
    busy = Story()
    busy.arrive()
    for n in range(30):
        busy.at += 1.0
        busy.event(EventKind.TICK, requests={str(busy.state.revision): 5, "0": 500})
        assert n > 15 or busy.stage() is Stage.SHADOW  # those of before it was watched owe nothing
    assert busy.stage() is Stage.REJECTED
    assert busy.causes()[-1] == "no_pairs_alarm"


def test_requests_that_came_while_no_engine_was_ready_owe_no_pair() -> None:
    story = Story()
    story.arrive()
    story.event(EventKind.UNREADY, "v", reason="its process ended", hopeless=False)
    story.at += 5.0
    story.event(EventKind.TICK, requests={str(story.state.revision): 500})
    assert story.stage() is Stage.SHADOW
    story.event(EventKind.READY, "v")
    story.pairs(300)
    assert story.stage() is Stage.CANARY


def test_a_version_that_can_not_be_loaded_is_rejected() -> None:
    story = Story()
    story.event(EventKind.CANDIDATE, "v", gate="passed")
    story.event(EventKind.UNREADY, "v", reason="model.onnx is truncated", hopeless=True)
    assert story.stage() is Stage.REJECTED
    assert story.decided[-1].evidence["reason"] == "model.onnx is truncated"


def test_the_revision_rises_whenever_workers_would_see_a_change_and_only_then() -> None:
    story = Story()
    story.to_live()
    story.arrive("w")
    story.operate("pause")
    story.pairs(50, version="w")
    seen: dict[int, object] = {}
    state, story2 = None, Story()
    for batch in batches(story.records):
        story2.state, _ = fold(story2.state, batch)
        state = story2.state
        shown = msgspec.structs.replace(view(state), revision=0)
        assert seen.setdefault(state.revision, shown) == shown


def test_a_fold_taken_up_from_its_encoding_is_the_fold_at_once() -> None:
    story = Story()
    story.to_live()
    story.pairs(100, good=False)
    state, decided = Story().state, []
    for batch in batches(story.records[1:]):
        state, made = fold(decode_state(encode_state(state)), batch)
        decided += made
    assert decided == story.decided
    assert encode_state(state) == encode_state(story.state)


def test_a_replay_reproduces_every_decision_and_tells_a_difference() -> None:
    story = Story()
    story.to_live()
    assert differences("r", story.records, story.decided) == []
    forged = [*story.decided[:-1], msgspec.structs.replace(story.decided[-1], cause="bribed")]
    assert "bribed" in differences("r", story.records, forged)[0]
    assert "is not reproduced" in differences("r", story.records[:1000], story.decided)[0]
    assert "was not made" in differences("r", story.records, story.decided[:-1])[0]
