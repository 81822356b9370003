"""Another policy opens new tests of what it changes, and leaves what watches the rest."""

import pytest
from rollout_story import POLICY, Story

from router import Arm, EventKind, Metric, RoutePolicy, Stage, differences, view
from router.sequential import spending

LENIENT = {"margin": 0.2, "score": "token_f1"}


def test_pairs_of_another_measure_than_the_policys_are_left_out() -> None:
    """After a restart the collector scores by the new policy before the promoter has told it, and some of the old
    policy's pairs are told late. A pair that is won would be none by agreement."""
    story = Story()
    story.arrive()
    story.pairs(50)
    old = RoutePolicy.model_validate(POLICY)
    judged = {"reference": "judge", "judge": {"route": "j"}, "margin": 0.02}
    new = RoutePolicy.model_validate({**POLICY, "quality": judged})
    assert new.measure != old.measure
    assert RoutePolicy.model_validate({**POLICY, "quality": {"margin": 0.01}}).measure == old.measure
    counted = story.state.trial.pairs
    story.seen(Metric.QUALITY, 1.0, 0.0, arm=Arm.TEACHER, measure=new.measure)
    story.tick()
    assert story.state.trial.pairs == counted
    story.policy(quality=judged)
    for measure in (old.measure, new.measure):
        story.seen(Metric.QUALITY, 1.0, 0.0, arm=Arm.TEACHER, measure=measure)
        story.tick()
    assert story.state.trial.pairs == 1


def test_in_shadow_certificates_of_another_risk_or_measure_begin_anew() -> None:
    for changes in ({"selective": {"max_risk": 0.02}}, {"selective": {"max_risk": 0.1}, "teachers": ["o/another"]}):
        story = Story(selective={"max_risk": 0.1})
        story.event(EventKind.CANDIDATE, "v", gate="passed", thresholds=[0.5])
        story.event(EventKind.READY, "v")
        for _ in range(60):
            story.seen(Metric.QUALITY, 1.0, 1.0, arm=Arm.TEACHER, confidence=0.9)
            story.tick(0.1)
        before = story.state.guards["v"].selective
        assert before is not None
        assert before.in_force is not None
        story.policy(**changes)
        after = story.state.guards["v"].selective
        assert after is not None
        assert (after.n, after.in_force) == (0, None)
    plain = Story()
    plain.arrive()
    plain.policy(selective={"max_risk": 0.1})
    assert plain.state.guards["v"].selective is not None


def test_a_difference_beyond_its_range_stops_no_fold() -> None:
    story = Story()
    story.arrive()
    story.seen(Metric.QUALITY, 1.0, 0.0, arm=Arm.TEACHER)
    story.tick()
    assert story.state.trial.pairs == 1


def test_where_a_route_spends_alpha_each_policy_is_a_new_test() -> None:
    story = Story(quality={"spend": "route"})
    story.arrive()
    spent = [story.state.trial.alpha]
    for margin in (0.06, 0.07, 0.06):
        story.policy(quality={"spend": "route", "margin": margin})
        spent.append(story.state.trial.alpha)
    assert spent == [spending.alpha_of(0.05, "route", n) for n in (1, 2, 3, 4)]
    assert sum(spent) < 0.05


def test_another_margin_opens_a_new_test() -> None:
    story = Story()
    story.arrive()
    story.pairs(150)
    assert story.state.trial.pairs > 50
    story.policy(quality={"margin": 0.05})
    assert (story.state.trial.pairs, story.stage()) == (0, Stage.SHADOW)


@pytest.mark.parametrize(
    "change",
    [{"quality": {"margin": 0.05}}, {"latency": {"slo_ms": 100, "margin": 0.1}}, {"teachers": ["o/another"]}],
)
def test_a_canary_goes_back_to_shadow_when_what_shadow_proved_changes_and_the_move_is_on_record(
    change: dict[str, object],
) -> None:
    story = Story()
    story.to_canary()
    before = story.state.revision
    story.policy(**change)
    assert story.stage() is Stage.SHADOW
    (*_, move) = story.decided
    assert (move.cause, move.before, move.after, move.fraction) == (
        "policy_changed", Stage.CANARY, Stage.SHADOW, 0.0,
    )  # fmt: skip
    assert move.evidence["tests"]["quality"]["passed"]
    assert story.state.revision == before + 1
    assert story.state.trial.pairs == 0
    story.pairs(400)
    assert story.stage() is Stage.CANARY
    assert differences("r", story.records, story.decided) == []


def test_a_canary_whose_steps_change_stays_and_its_new_share_is_on_record() -> None:
    story = Story()
    story.to_canary()
    story.policy(rollout={"steps": [0.1, 1.0], "min_dwell": "20s", "min_requests": 30})
    move = story.decided[-1]
    assert (move.cause, move.before, move.after) == ("policy_changed", Stage.CANARY, Stage.CANARY)
    assert move.fraction == view(story.state).fraction == 0.1
    story.policy(
        capture={"rate": 0.5}, rollout={"steps": [0.1, 1.0], "min_dwell": "20s", "min_requests": 30}
    )  # nothing that a test is about
    assert story.decided[-1] is move


def test_another_score_gives_the_live_version_a_new_level_and_new_detectors() -> None:
    """Wholly right by token F1; by exact match 12.5% are not, which is within the margin."""
    story = Story(quality=LENIENT)
    story.to_live()
    story.pairs(10, good=False)
    story.policy(quality={**LENIENT, "score": "exact"})
    guard = story.state.guards["v"]
    assert (guard.quality.n, guard.levels.get("quality")) == (0, None)
    assert guard.errors.n > 0
    for i in range(1500):
        story.pairs(1, good=i % 8 != 0)
    assert story.stage() is Stage.LIVE
    assert story.state.guards["v"].levels["quality"].mean == pytest.approx(0.125, abs=0.01)
    for i in range(1500):
        story.pairs(1, good=i % 3 != 0)
    assert story.stage() is Stage.ROLLED_BACK
    assert differences("r", story.records, story.decided) == []


def test_pairs_with_another_teacher_are_not_added_to_those_with_the_one_before() -> None:
    story = Story()
    story.arrive()
    story.pairs(80)
    assert story.state.trial.quality.n == story.state.trial.latency.n == 80
    story.policy(teachers=["o/m", "o/another"])
    assert (story.state.trial.quality.n, story.state.trial.latency.n, story.stage()) == (0, 0, Stage.SHADOW)
    assert story.state.guards["v"].quality.n == 0


def test_another_teacher_gives_the_live_version_a_new_level_of_quality_and_leaves_what_needs_no_teacher() -> None:
    story = Story(quality={"margin": 0.2})
    story.to_live()
    story.pairs(8, good=False)
    before = story.state.guards["v"]
    assert before.quality.n > 0
    story.policy(quality={"margin": 0.2}, teachers=["o/another"])
    guard = story.state.guards["v"]
    assert (guard.quality.n, "quality" in guard.levels) == (0, False)
    assert (guard.errors, guard.slo, guard.levels["errors"]) == (before.errors, before.slo, before.levels["errors"])
    assert story.stage() is Stage.LIVE
    for i in range(400):
        story.pairs(1, good=i % 8 != 0)
    assert story.state.guards["v"].levels["quality"].mean == pytest.approx(0.125, abs=0.01)
    assert differences("r", story.records, story.decided) == []


def test_another_margin_leaves_the_live_version_its_level_and_starts_the_detector_of_the_margin_anew() -> None:
    story = Story(quality=LENIENT)
    story.to_live()
    story.pairs(50)
    story.pairs(8, good=False)
    level = story.state.guards["v"].levels["quality"]
    assert level.worse.log_value > 0
    story.policy(quality={**LENIENT, "margin": 0.3})
    guard = story.state.guards["v"]
    assert (guard.quality.n, guard.levels["quality"]) == (0, level)
    story.policy(quality={**LENIENT, "margin": 0.3, "audit_rate": 0.5})
    story.pairs(1)
    assert story.state.guards["v"].quality.n == 1


def test_another_slo_or_error_bound_starts_its_own_detectors_anew_and_no_others() -> None:
    story = Story()
    story.to_live()
    story.serves(2500)
    before = story.state.guards["v"]
    assert before.levels["slo"].mean is not None
    story.policy(errors={"promote_below": 0.05, "rollback_above": 0.2})
    guard = story.state.guards["v"]
    assert (guard.errors.n, guard.levels, guard.slo, guard.quality) == (0, before.levels, before.slo, before.quality)
    errors = {"errors": {"promote_below": 0.05, "rollback_above": 0.2}}
    story.policy(latency={"slo_ms": 100, "quantile": 0.8, "block": "1s"}, **errors)
    guard = story.state.guards["v"]
    assert (guard.slo.n, guard.levels) == (0, before.levels)
    story.policy(latency={"slo_ms": 300, "quantile": 0.8, "block": "1s"}, **errors)
    assert "slo" not in story.state.guards["v"].levels


def test_a_level_of_another_score_is_not_brought_along_from_earlier_service() -> None:
    story = Story(quality=LENIENT)
    story.to_live()
    story.operate("rollback", "v")
    story.policy(quality={**LENIENT, "score": "exact"})
    story.operate("promote", "v")
    assert story.state.guards["v"].levels.get("quality") is None
