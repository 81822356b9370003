"""A version is watched from its own level too, the harm at which it was promoted."""

import pytest
from rollout_story import Story

from router import Arm, Metric, Stage, differences, status

WIDE = {"quality": {"margin": 0.2}}


def losing(story: Story, n: int, *, every: int) -> None:
    """Pairs of which one in `every` is lost, as long as the version is in service."""
    for i in range(1, n + 1):
        if story.stage() in (Stage.CANARY, Stage.LIVE):
            story.pairs(1, good=i % every != 0)


def shown(story: Story) -> dict[str, object]:
    assert story.state.policy is not None
    evidence: dict[str, object] = status(story.state)["evidence"]["v"]
    return evidence


def test_a_version_promoted_by_hand_is_watched_from_the_level_that_it_had() -> None:
    """11% lost, within the margin of 20%, and 11 points below the level that was proven."""
    story = Story(**WIDE)
    story.to_live()
    story.operate("rollback", "v")
    story.operate("promote", "v")
    guard = story.state.guards["v"]
    assert (guard.levels["quality"].mean, guard.levels["quality"].worse.n, guard.quality.n) == (0.0, 0, 0)
    losing(story, 3000, every=9)
    assert (story.stage(), story.causes()[-1]) == (Stage.ROLLED_BACK, "quality_drop_alarm")
    assert differences("r", story.records, story.decided) == []


def test_who_promotes_after_the_alarm_of_a_level_has_accepted_where_it_stands_and_nothing_worse() -> None:
    story = Story(**WIDE)
    story.to_live()
    losing(story, 3000, every=9)
    assert story.causes()[-1] == "quality_drop_alarm"
    story.operate("promote", "v")
    losing(story, 2000, every=9)
    assert story.stage() is Stage.LIVE
    assert story.state.guards["v"].levels["quality"].mean == pytest.approx(1 / 9, abs=0.01)
    losing(story, 4000, every=5)
    assert story.causes()[-1] in ("quality_drop_alarm", "quality_alarm")


def test_a_version_without_evidence_of_its_own_learns_its_level_from_its_first_pairs() -> None:
    story = Story(**WIDE)
    story.arrive()
    story.operate("promote", "v")
    losing(story, 199, every=20)
    assert story.state.guards["v"].levels["quality"].mean is None
    losing(story, 20, every=20)
    assert story.state.guards["v"].levels["quality"].mean == pytest.approx(0.05, abs=0.01)
    losing(story, 3000, every=6)
    assert story.causes()[-1] == "quality_drop_alarm"


def test_a_version_promoted_from_shadow_by_hand_brings_the_level_of_its_pairs() -> None:
    story = Story(quality={"margin": 0.05})
    story.arrive()
    story.pairs(40)
    story.operate("pause")
    story.pairs(300)
    story.operate("promote", "v")
    assert story.state.guards["v"].levels["quality"].mean == 0.0


def test_errors_far_above_their_level_take_traffic_back_below_the_bound_of_all() -> None:
    """None failed in the canary; 8% fail now, and 10% would be borne of any student."""
    story = Story(errors={"promote_below": 0.05, "rollback_above": 0.3})
    story.to_live()
    for i in range(3000):
        if story.stage() is Stage.LIVE:
            story.serves(1, error=i % 8 == 0, every=1.0)
    assert story.causes()[-1] in ("error_rise_alarm", "slo_rise_alarm")
    slow = Story(latency={"slo_ms": 100, "quantile": 0.7, "block": "1s"})
    slow.to_live()
    for i in range(3000):
        if slow.stage() is Stage.LIVE:
            slow.serves(1, ms=500.0 if i % 6 == 0 else 50.0, every=1.0)
    assert slow.causes()[-1] == "slo_rise_alarm"


def test_the_level_of_errors_is_the_one_of_the_canary() -> None:
    story = Story(errors={"promote_below": 0.1, "rollback_above": 0.3}, latency={"quantile": 0.6, "block": "1s"})
    story.to_canary()
    for i in range(3000):
        story.serves(1, error=i % 25 == 0)
    assert story.stage() is Stage.LIVE
    assert story.state.guards["v"].levels["errors"].mean == pytest.approx(0.03, abs=0.01)
    assert story.state.guards["v"].levels["errors"].worse.n > 200


def test_a_version_of_which_nearly_all_fails_has_a_level_that_nothing_breaks() -> None:
    story = Story(errors={"promote_below": 0.05, "rollback_above": 0.98}, latency={"quantile": 0.01})
    story.arrive()
    story.operate("promote", "v")
    for i in range(1000):
        story.at += 0.1
        story.seen(Metric.ERROR, float(i % 50 != 0), arm=Arm.STUDENT)
    assert story.stage() is Stage.LIVE


def test_a_fall_of_two_points_is_a_warning_that_stays_to_be_seen() -> None:
    story = Story(**WIDE)
    story.to_live()
    losing(story, 8000, every=25)
    assert story.stage() is Stage.LIVE
    losing(story, 200, every=1000)
    evidence = shown(story)
    assert (evidence["level"], evidence["warned"]) == (0.0, True)
    assert evidence["warnings"] == ["quality is more than 2 points below its level"]


def test_the_figures_hold_both_detectors_of_every_stream() -> None:
    story = Story()
    story.to_live()
    story.serves(2000)
    alarms = shown(story)["alarms"]
    assert isinstance(alarms, dict)
    assert set(alarms) == {
        "quality", "errors", "slo",
        "below_level", "errors_above_level", "slo_above_level",
        "warning", "errors_warning", "slo_warning",
    }  # fmt: skip
