"""Presets, the capacity probe, alpha over versions, outcomes, the SPRT, and the teacher kept in parallel."""

import math

import pytest
from pydantic import ValidationError
from rollout_story import POLICY, Story

from router import Arm, Metric, RoutePolicy, Stage, status, view


def policy(**changes: object) -> RoutePolicy:
    return RoutePolicy.model_validate({"teachers": ["o/m"], "student": {}, **changes})


def test_labels_that_stop_coming_while_there_is_traffic_are_an_alarm() -> None:
    """With `truth`, nobody knows how many are due: a silence of truth_within and no_pairs_after is."""
    truth = {"reference": "truth", "truth_within": "10m", "margin": 0.07}
    for asked, stage in ((1, Stage.REJECTED), (0, Stage.SHADOW)):
        story = Story(quality=truth)
        story.arrive()
        for n in range(26 * 6):
            story.tick(10.0, **{str(story.state.revision): asked})
            assert n > 148 or story.stage() is Stage.SHADOW
        assert story.stage() is stage
    assert story.causes() == ["ready"]


def test_one_end_of_a_process_is_one_failure_to_what_watches_and_many_to_what_promotes() -> None:
    alone, together = Story(), Story()
    for story, along in ((alone, False), (together, True)):
        story.to_canary()
        before = story.state.trial.errors
        for n in range(40):
            story.seen(Metric.ERROR, 1.0, arm=Arm.STUDENT, along=along and n > 0)
        story.tick()
        assert story.state.trial.errors.n == before.n + (0 if story is alone else 40)  # out, its trial is over
    assert alone.stage() is Stage.ROLLED_BACK
    assert together.stage() is Stage.CANARY
    assert together.state.trial.errors.log_value < before.log_value


def test_presets_give_their_steps_and_dwells() -> None:
    cautious, fast = policy(rollout="cautious").rollout, policy(rollout={"preset": "fast", "holdback": 0.1}).rollout
    days, begins = [], 1
    for step in range(len(cautious.steps)):
        days.append((cautious.steps[step], begins))
        begins += int(cautious.dwell(step) / 86400)
    assert days == [(0.05, 1), (0.1, 2), (0.25, 3), (0.5, 4), (0.75, 8), (1.0, 15)]
    assert begins == 31
    assert cautious.parallel == 48 * 3600
    hours = [sum(fast.dwell(s) for s in range(n)) / 3600 for n in range(len(fast.steps))]
    assert dict(zip(hours, fast.steps, strict=True)) == {0: 0.05, 2: 0.1, 6: 0.25, 12: 0.5, 24: 1.0}
    assert fast.holdback == 0.1


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ("slow", "no preset 'slow'; there are: cautious, fast"),
        ({"preset": "fast", "steps": [0.5, 1.0]}, "give min_dwell too"),
        ({"steps": [0.5, 1.0], "min_dwell": ["1h"]}, "min_dwell has 1 durations for 2 steps"),
    ],
)
def test_a_rollout_that_contradicts_itself_is_refused(rollout: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        policy(rollout=rollout)


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ({"reference": "self", "test": "sprt", "discordance": 0.02}, "must be above the margin 0.02"),
        ({"reference": "self", "test": "sprt"}, "needs discordance"),
        ({"test": "sprt"}, "needs good_rate"),
        ({"test": "sprt", "good_rate": 0.93}, "must be above 1 - margin = 0.93"),
        ({"reference": "judge"}, "needs judge"),
        ({"score": []}, "empty list"),
    ],
)
def test_a_quality_policy_that_could_not_be_tested_is_refused(quality: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        policy(quality=quality)


def test_the_margin_of_a_reference_that_can_be_beaten_is_narrower() -> None:
    assert (policy().quality.margin, policy(quality={"reference": "self"}).quality.margin) == (0.07, 0.02)
    assert policy(quality={"reference": "self", "margin": 0.05}).quality.margin == 0.05


PROBED = {"rollout": {"steps": [0.25, 1.0], "min_dwell": "0s", "min_requests": 30, "probe": "5s"}}


def probing(story: Story, n: int, *, ms: float = 50.0) -> None:
    """Shadow calls at the next step's rate, one block a second."""
    for _ in range(n):
        story.at += 1.0
        story.seen(Metric.LATENCY, ms, 80.0, arm=Arm.TEACHER)
        story.tick()


def test_a_step_is_taken_only_after_its_load_was_borne() -> None:
    story = Story(**PROBED)
    story.arrive()
    story.pairs(300)
    assert (story.stage(), view(story.state).probe) == (Stage.SHADOW, 0.25)
    probing(story, 100)
    assert (story.stage(), view(story.state).probe) == (Stage.CANARY, 0.0)
    story.serves(1000)
    assert (story.state.step, view(story.state).probe) == (0, pytest.approx(0.97))
    assert status(story.state)["evidence"]["v"]["probe"]["fraction"] == pytest.approx(0.97)
    probing(story, 100)
    assert story.state.step == 1


def test_a_student_that_the_next_load_slows_down_is_not_moved_up() -> None:
    story = Story(**PROBED)
    story.arrive()
    story.pairs(300)
    probing(story, 30, ms=500.0)
    assert (story.stage(), story.causes()[-1]) == (Stage.REJECTED, "probe_failed")


def test_a_probe_lasts_as_long_as_it_was_asked_to() -> None:
    story = Story(rollout={**PROBED["rollout"], "probe": "1h"})
    story.arrive()
    story.pairs(300)
    probing(story, 1000)
    assert story.stage() is Stage.SHADOW


def test_alpha_over_versions_counts_those_that_entered_shadow_and_a_later_one_needs_more() -> None:
    story = Story(quality={"spend": "route", "n_max": 3000})
    boundaries = []
    for version in ("a", "b", "c"):
        story.arrive(version)
        boundaries.append(status(story.state)["evidence"][version]["tests"]["quality"]["log_boundary"])
        story.pairs(80, good=False, version=version)
        assert story.stage(version) is Stage.REJECTED
    assert boundaries == [pytest.approx(math.log(math.pi**2 * k * k / 6 / 0.05), abs=1e-6) for k in (1, 2, 3)]


def test_the_sprt_decides_with_fewer_pairs_and_gives_up_at_its_lower_boundary() -> None:
    sprt = Story(quality={"test": "sprt", "good_rate": 0.99, "n_max": 3000}, latency=POLICY["latency"])
    betting = Story()
    for story in (sprt, betting):
        story.arrive()
        story.pairs(300)
        assert story.stage() is Stage.CANARY
    needed = [story.decided[1].evidence["pairs"] for story in (sprt, betting)]
    assert needed[0] < needed[1]
    bad = Story(quality={"test": "sprt", "good_rate": 0.99, "n_max": 3000})
    bad.arrive()
    for _ in range(20):
        bad.pairs(1, good=False)
        bad.pairs(9)
    assert bad.causes()[-1] == "quality_futile"


def test_the_sprt_of_paired_times_passes_a_faster_student() -> None:
    story = Story(latency={**POLICY["latency"], "test": "sprt", "good_rate": 0.25})
    story.arrive()
    story.pairs(300)
    assert story.stage() is Stage.CANARY


def outcomes(story: Story, n: int, *, student: float, teacher: float) -> None:
    """Clusters whose outcome is known: half in each arm, every tenth a success in so many tenths."""
    for i in range(n):
        for arm, rate in ((Arm.STUDENT, student), (Arm.TEACHER, teacher)):
            story.seen(Metric.OUTCOME, float(i % 10 < 10 * rate), arm=arm, propensity=0.5)
        story.at += 0.1
        story.tick()


def test_worse_outcomes_take_traffic_back_and_better_ones_promote_nothing() -> None:
    story = Story(outcomes={"window": "1h", "margin": 0.05})
    story.to_canary()
    outcomes(story, 1500, student=0.9, teacher=0.5)
    assert (story.stage(), story.state.step) == (Stage.CANARY, 0)
    outcomes(story, 600, student=0.2, teacher=0.8)
    assert (story.stage(), story.causes()[-1]) == (Stage.ROLLED_BACK, "outcome_alarm")


def test_the_teacher_is_kept_in_parallel_for_as_long_as_was_asked() -> None:
    story = Story(rollout={**POLICY["rollout"], "parallel": "120s"})
    story.to_live()
    assert view(story.state).audit_all
    assert "note" not in status(story.state)["evidence"]["v"]
    revision = story.state.revision
    for _ in range(7):
        story.pairs(1)
        story.tick(10.0)
    assert not view(story.state).audit_all
    assert "capacity kept for more may be given back" in status(story.state)["evidence"]["v"]["note"]
    assert story.state.revision > revision


def test_who_paused_and_pinned_is_shown_with_the_reason_until_it_is_undone() -> None:
    story = Story()
    story.arrive()
    story.operate("pause")
    story.operate("pin", "v")
    shown = status(story.state)
    assert shown["paused_by"] == shown["pinned_by"] == {"who": "ann", "why": "because"}
    story.operate("resume")
    story.operate("unpin")
    shown = status(story.state)
    assert (shown["paused_by"], shown["pinned_by"]) == ({}, {})
