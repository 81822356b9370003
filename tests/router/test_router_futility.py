"""A trial that can't be decided ends with the teacher, and the next candidate gets its turn."""

import pytest
from rollout_story import Story

from router import Arm, Metric, Stage, differences


def test_a_slower_student_with_perfect_answers_is_rejected_and_the_next_one_is_tried() -> None:
    story = Story(quality={"n_max": 500})
    story.arrive("v")
    story.arrive("w")
    story.pairs(110, ms=90.0)
    assert (story.stage("v"), story.stage("w")) == (Stage.REJECTED, Stage.SHADOW)
    assert story.causes() == ["ready", "latency_too_slow", "ready"]
    assert not story.decided[1].evidence["tests"]["latency"]["passed"]


def test_pairs_without_a_comparison_of_times_end_at_n_max() -> None:
    story = Story(quality={"n_max": 500})
    story.arrive()
    for _ in range(500):
        assert story.stage() is Stage.SHADOW
        story.seen(Metric.QUALITY, 1.0, 1.0, arm=Arm.TEACHER)
        story.tick(0.1)
    assert (story.stage(), story.causes()[-1]) == (Stage.REJECTED, "latency_undecided")


def test_a_step_whose_slo_test_never_passes_ends_at_n_max_blocks() -> None:
    story = Story(quality={"n_max": 300})
    story.to_canary()
    for _ in range(290):
        story.serves(9)
        story.serves(1, ms=500.0)
    assert story.stage() is Stage.CANARY
    for _ in range(20):
        story.serves(9)
        story.serves(1, ms=500.0)
    assert (story.stage(), story.causes()[-1]) == (Stage.ROLLED_BACK, "slo_undecided")


def test_the_error_test_ends_at_n_max_requests_of_the_last_step_and_not_before() -> None:
    story = Story(errors={"promote_below": 0.005, "rollback_above": 0.1}, quality={"n_max": 1000})
    story.to_canary()
    story.operate("pause")
    story.serves(1100)
    assert (story.stage(), story.state.step) == (Stage.CANARY, 0)
    story.operate("resume")
    story.serves(800)
    assert story.state.live == "v"  # 1,153 clean requests prove less than 0.5%
    never = Story(errors={"promote_below": 0.001, "rollback_above": 0.1}, quality={"n_max": 1500})
    never.to_canary()
    for _ in range(60):
        never.serves(1, error=True)
        never.serves(50)
    assert (never.stage(), never.causes()[-1]) == (Stage.ROLLED_BACK, "errors_undecided")
    assert differences("r", never.records, never.decided) == []


@pytest.mark.parametrize("n_max", [1, 4])
def test_the_smallest_n_max_ends_a_trial_after_so_many_pairs(n_max: int) -> None:
    story = Story(quality={"n_max": n_max}, rollout={"min_requests": 1})
    story.arrive()
    assert story.stage() is Stage.SHADOW
    story.pairs(n_max)
    assert story.stage() is Stage.REJECTED
