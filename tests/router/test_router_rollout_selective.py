"""A student that is good at a part only answers just that part, as long as its certificate holds."""

import pytest
from rollout_story import POLICY, Story

from router import Arm, EventKind, Metric, Observation, RoutePolicy, Stage, differences, rollout_selective, status, view
from router.rollout_state import Guard
from router.sequential.selective import Selective

SELECTIVE = {"selective": {"max_risk": 0.1, "min_coverage": 0.2}, "quality": {"margin": 0.07, "n_max": 3000}}
THRESHOLDS = [0.8, 0.4, 0.1]


class Part(Story):
    """A student whose confidence tells where it is right: of four answers three are sure, the fourth is not."""

    def arrive(self, version: str = "v") -> None:
        self.event(EventKind.CANDIDATE, version, gate="passed", thresholds=THRESHOLDS)
        self.event(EventKind.READY, version)

    def pair(self, confidence: float | None, *, good: bool, arm: Arm = Arm.TEACHER, inclusion: float = 1.0) -> None:
        self.at += 0.1
        self.seen(Metric.LATENCY, 50.0, 80.0, arm=arm)
        self.seen(Metric.ERROR, 0.0, arm=arm)
        self.seen(Metric.QUALITY, float(good), 1.0, arm=arm, confidence=confidence, inclusion=inclusion)
        self.tick()

    def quarters(self, n: int, *, sure_good: bool = True, unsure_good: bool = False, arm: Arm = Arm.TEACHER) -> None:
        for _ in range(n):
            for _ in range(3):
                self.pair(0.9, good=sure_good, arm=arm)
            self.pair(0.2, good=unsure_good, arm=arm)

    def to_selective_live(self) -> None:
        self.arrive()
        self.quarters(40)
        assert self.stage() is Stage.CANARY
        self.serves(2000)
        assert self.stage() is Stage.LIVE


def test_a_version_that_fails_as_a_whole_goes_live_on_the_part_that_it_knows() -> None:
    story = Part(**SELECTIVE)
    story.to_selective_live()
    assert story.causes()[:2] == ["ready", "selective_and_latency_passed"]
    shown = status(story.state)["evidence"]["v"]["selective"]
    assert shown["threshold"] == 0.4  # 0.8 is safe and so is 0.4; 0.1 lets the wrong quarter in
    assert shown["coverage"] == pytest.approx(0.75, abs=0.01)
    assert shown["risk"] == 0.0
    assert 0.0 < shown["risk_bound"] <= 0.1
    assert view(story.state).live_threshold == 0.4
    assert differences("r", story.records, story.decided) == []


def test_without_selective_the_same_student_is_rejected() -> None:
    story = Part(quality={"margin": 0.07, "n_max": 3000})
    story.arrive()
    story.quarters(40)
    assert story.stage() is Stage.REJECTED


def test_better_answers_to_unsure_inputs_loosen_the_threshold_and_workers_see_it_as_a_decision() -> None:
    story = Part(**SELECTIVE)
    story.to_selective_live()
    revision = story.state.revision
    story.quarters(120, unsure_good=True)
    assert story.causes()[-1] == "threshold_loosened"
    assert view(story.state).live_threshold == 0.1
    assert story.state.revision > revision
    assert story.decided[-1].before is story.decided[-1].after is Stage.LIVE


def test_wrong_answers_where_it_was_sure_take_the_certificate_and_the_version_back() -> None:
    story = Part(**SELECTIVE)
    story.to_selective_live()
    told = len(story.records)
    story.quarters(30, sure_good=False, arm=Arm.STUDENT)
    assert story.stage() is Stage.ROLLED_BACK
    assert story.causes()[-1] == "selective_lost"
    spoilt = [d for d in story.decided if d.offset > 3 * told]
    assert spoilt[-1].evidence["selective"]["taken_back"] >= 1


def test_answers_without_a_confidence_are_never_evidence_for_serving() -> None:
    story = Part(**SELECTIVE)
    story.arrive()
    for _ in range(400):
        story.pair(None, good=True)
    assert story.stage() is Stage.SHADOW
    assert status(story.state)["evidence"]["v"]["selective"]["threshold"] is None


def test_a_part_too_small_to_be_worth_serving_ends_with_the_teacher() -> None:
    story = Part(**{**SELECTIVE, "selective": {"max_risk": 0.1, "min_coverage": 0.9}, "quality": {"n_max": 400}})
    story.arrive()
    story.quarters(110)
    assert story.stage() is Stage.REJECTED
    assert story.causes()[-1] == "selective_undecided"


def test_an_unsafe_first_threshold_ends_the_trial_early() -> None:
    story = Part(**SELECTIVE)
    story.arrive()
    story.quarters(60, sure_good=False)
    assert story.causes()[-1] == "selective_inferior"


def test_a_version_promoted_by_hand_serves_at_its_first_threshold_and_is_watched_there() -> None:
    story = Part(**SELECTIVE)
    story.arrive()
    story.operate("promote", "v")
    assert view(story.state).live_threshold == 0.8
    story.quarters(3, sure_good=True)
    assert story.stage() is Stage.LIVE
    story.quarters(20, sure_good=False)
    assert (story.stage(), story.causes()[-1]) == (Stage.ROLLED_BACK, "quality_alarm")


def test_thresholds_that_cannot_be_used_give_way_to_the_default_ones() -> None:
    story = Part(**SELECTIVE)
    story.event(EventKind.CANDIDATE, "v", gate="passed", thresholds=[0.1, 0.9])
    story.event(EventKind.READY, "v")
    story.quarters(40)
    assert story.stage() is Stage.CANARY
    assert view(story.state).challenger_threshold is not None


def test_a_versions_own_shares_of_alpha_decide_what_is_certified_first() -> None:
    story = Part(**SELECTIVE)
    story.event(EventKind.CANDIDATE, "v", gate="passed", thresholds=THRESHOLDS, shares=[0.0, 1.0, 0.0])
    story.event(EventKind.READY, "v")
    tested = story.state.guards["v"].selective
    assert tested is not None
    assert tested.shares == (0.0, 1.0, 0.0)
    story.event(EventKind.CANDIDATE, "w", gate="passed", thresholds=THRESHOLDS, shares=[0.9, 0.9, 0.9])
    assert story.state.versions["w"].shares == (0.9, 0.9, 0.9)


def test_another_risk_starts_the_tests_anew_and_the_live_version_keeps_its_threshold_meanwhile() -> None:
    story = Part(**SELECTIVE)
    story.to_selective_live()
    story.policy(**{**SELECTIVE, "selective": {"max_risk": 0.05}})
    assert (story.stage(), view(story.state).live_threshold) == (Stage.LIVE, 0.4)
    assert story.state.guards["v"].selective is not None
    assert story.state.guards["v"].selective.n == 0
    story.quarters(150)
    assert story.state.guards["v"].certified
    assert view(story.state).live_threshold == 0.4


def test_a_version_proven_on_a_part_is_not_left_to_serve_all_when_the_policy_says_so() -> None:
    story = Part(**SELECTIVE)
    story.to_selective_live()
    story.policy(quality=SELECTIVE["quality"])
    assert (story.stage(), story.causes()[-1]) == (Stage.ROLLED_BACK, "policy_changed")


@pytest.mark.parametrize("parallel", ["0s", "48h"])
def test_in_a_canary_deferred_answers_weigh_as_little_as_audits_are_rare(parallel: str) -> None:
    """Also where the teacher will be asked besides for all of them, once the student is live."""
    rollout = {"steps": [0.5, 1.0], "min_dwell": "20s", "min_requests": 30, "parallel": parallel}
    story = Part(**{**SELECTIVE, "quality": {"audit_rate": 0.05, "n_max": 3000}, "rollout": rollout})
    story.arrive()
    story.quarters(40)
    assert story.stage() is Stage.CANARY
    before = story.state.guards["v"].selective
    story.pair(0.2, good=True, arm=Arm.STUDENT, inclusion=1.0)
    story.tick()
    after = story.state.guards["v"].selective
    assert before is not None
    assert after is not None
    assert after.tested[-1].weight - before.tested[-1].weight == pytest.approx(0.05)


def test_the_thresholds_detector_has_the_routes_boundary() -> None:
    """Two lost pairs reach a mean run length of 3, and not one of 3,000."""
    for most, taken in ((3.0, 1), (3000.0, 0)):
        policy = RoutePolicy.model_validate({**POLICY, **SELECTIVE, "rollout": {"detector_threshold": most}})
        assert policy.selective is not None
        guard = Guard(selective=Selective.start((0.8,)))
        for value, times in ((1.0, 100), (0.0, 2)):
            seen = [
                Observation(
                    id=str(n), at=1.0, route="r", version="v", metric=Metric.QUALITY, arm=Arm.TEACHER, propensity=1.0,
                    value=value, pair_value=1.0, confidence=0.9,
                )
                for n in range(times)
            ]  # fmt: skip
            guard = rollout_selective.pairs(guard, seen, policy, policy.selective, Stage.SHADOW)
        assert guard.selective is not None
        assert guard.selective.taken_back == taken


def test_a_canary_whose_last_certificate_wanes_is_tested_on_in_shadow_and_comes_again() -> None:
    story = Part(**{**SELECTIVE, "selective": {"max_risk": 0.1, "min_coverage": 0.2}})
    story.arrive()
    while story.stage() is Stage.SHADOW:
        story.quarters(1)
    tested = story.state.guards["v"].selective
    for _ in range(3):  # just after it was certified, three lost ones at once
        story.pair(0.9, good=False, arm=Arm.STUDENT, inclusion=0.05)
    assert story.stage() is Stage.SHADOW
    assert story.causes()[-1] == "selective_lost"
    assert view(story.state).challenger_threshold is None
    after = story.state.guards["v"].selective
    assert tested is not None
    assert after is not None
    assert after.n > tested.n  # evidence is kept
    assert story.state.tests == 2  # the steps' own tests begin anew
    story.quarters(60)
    assert story.stage() is Stage.CANARY
    assert story.causes().count("selective_and_latency_passed") == 2
    assert differences("r", story.records, story.decided) == []


def test_what_the_detector_took_back_in_shadow_is_no_alarm_of_a_later_canary() -> None:
    rules = {"selective": {"max_risk": 0.1, "min_coverage": 0.9}, "rollout": {"detector_threshold": 3.0}}
    story = Part(**{**SELECTIVE, **rules})
    story.event(EventKind.CANDIDATE, "v", gate="passed", thresholds=[0.4])
    story.event(EventKind.READY, "v")
    story.quarters(40)  # certified, and too little of it to climb
    for _ in range(3):
        story.pair(0.9, good=False)
    tested = story.state.guards["v"].selective
    assert story.stage() is Stage.SHADOW
    assert tested is not None
    assert tested.alarm()
    for _ in range(200):
        story.pair(0.9, good=True)
    assert story.stage() is Stage.CANARY
    serving = story.state.guards["v"].selective
    assert serving is not None
    assert serving.taken_back == tested.taken_back
    assert not serving.alarm()


def test_deferred_answers_weigh_as_little_as_audits_are_rare() -> None:
    """Of the served answers one in twenty is audited, all wrong; a deferred one comes for nothing each time, all right.
    Unweighted the right ones would carry the looser threshold."""
    story = Part(**{**SELECTIVE, "quality": {"audit_rate": 0.05, "n_max": 3000}})
    story.to_selective_live()
    for _ in range(30):
        for _ in range(20):
            story.pair(0.2, good=True, arm=Arm.STUDENT, inclusion=1.0)
        story.pair(0.9, good=False, arm=Arm.STUDENT, inclusion=0.05)
    assert story.stage() is Stage.ROLLED_BACK
    assert "threshold_loosened" not in story.causes()
