"""Decisions are pure, sticky, and their probabilities are the true ones."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Arm, Decision, RequestFacts, Rollout, RoutePolicy, ShadowCall, Stage, decide

POLICY = RoutePolicy.model_validate(
    {
        "teachers": ["o/m"],
        "student": {},
        "quality": {"audit_rate": 0.2, "shadow_rate": 0.5},
        "rollout": {"steps": [0.05, 1.0], "holdback": 0.1},
    }
)
N = 4000
NOISE = 0.035  # four standard deviations of a share over N requests


def canary(fraction: float, live: str | None = None) -> Rollout:
    return Rollout(route="r", revision=3, live=live, challenger="c", stage=Stage.CANARY, fraction=fraction)


def shadow(live: str | None = None) -> Rollout:
    return Rollout(route="r", live=live, challenger="c", stage=Stage.SHADOW)


def decisions(rollout: Rollout, *, ready: tuple[str, ...] = ("c", "l"), n: int = N) -> list[Decision]:
    facts = (RequestFacts(request_id=f"q{i}", cluster=f"k{i}") for i in range(n))
    return [decide(POLICY, rollout, f, ready=ready) for f in facts]


@pytest.mark.parametrize(
    ("rollout", "shares"),
    [
        (Rollout(route="r"), {None: 1.0}),
        (shadow(), {None: 1.0}),
        (canary(0.25), {"c": 0.25, None: 0.75}),
        (canary(1.0), {"c": 0.9, None: 0.1}),
        (canary(0.25, live="l"), {"c": 0.25, "l": 0.65, None: 0.1}),
        (Rollout(route="r", live="l"), {"l": 0.9, None: 0.1}),
        (shadow(live="l"), {"l": 0.9, None: 0.1}),
    ],
)
def test_each_arm_gets_its_share_and_states_it_as_propensity(rollout: Rollout, shares: dict[str | None, float]) -> None:
    made = decisions(rollout)
    counted = Counter(d.version for d in made)
    assert set(counted) == set(shares)
    for version, share in shares.items():
        assert counted[version] / N == pytest.approx(share, abs=NOISE)
        assert {round(d.propensity, 9) for d in made if d.version == version} == {round(share, 9)}
    assert all((d.arm is Arm.STUDENT) == (d.version is not None) for d in made)


@given(st.text(min_size=1), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_a_cluster_in_at_a_small_step_stays_in_at_every_larger_one(cluster: str, a: float, b: float) -> None:
    small, large = sorted((a, b))
    facts = RequestFacts(request_id="q", cluster=cluster)
    if decide(POLICY, canary(small), facts, ready=["c"]).version == "c":
        assert decide(POLICY, canary(large), facts, ready=["c"]).version == "c"


@given(st.text(min_size=1), st.floats(0.0, 0.9))
def test_the_place_of_a_cluster_does_not_depend_on_the_version(cluster: str, fraction: float) -> None:
    facts = RequestFacts(request_id="q", cluster=cluster)
    other = Rollout(route="r", challenger="d", stage=Stage.CANARY, fraction=fraction)
    arms = {decide(POLICY, rollout, facts, ready=["c", "d"]).arm for rollout in (canary(fraction), other)}
    assert len(arms) == 1


def test_a_version_that_is_not_ready_gets_no_traffic_and_no_shadow() -> None:
    for rollout in (canary(0.5), shadow(), Rollout(route="r", live="l")):
        assert {(d.arm, d.shadows) for d in decisions(rollout, ready=(), n=500)} == {(Arm.TEACHER, ())}


def test_in_shadow_the_teachers_requests_are_shadowed_at_the_rate() -> None:
    shadowed = [d for d in decisions(shadow()) if d.shadows]
    assert len(shadowed) / N == pytest.approx(0.5, abs=NOISE)
    assert {d.shadows for d in shadowed} == {(ShadowCall(Arm.STUDENT, "c"),)}


def test_students_answers_are_audited_and_the_holdback_is_always_shadowed() -> None:
    made = decisions(canary(1.0))
    served = [d for d in made if d.arm is Arm.STUDENT]
    assert sum(d.shadows == (ShadowCall(Arm.TEACHER),) for d in served) / len(served) == pytest.approx(0.2, abs=NOISE)
    assert {d.shadows for d in made if d.arm is Arm.TEACHER} == {(ShadowCall(Arm.STUDENT, "c"),)}


def test_beside_a_live_student_a_challenger_rides_where_the_teacher_answers_too() -> None:
    made = decisions(shadow(live="l"))
    rider = ShadowCall(Arm.STUDENT, "c")
    assert {d.shadows for d in made if d.version == "l"} == {(), (ShadowCall(Arm.TEACHER), rider)}
    assert {d.shadows for d in made if d.version is None} == {(ShadowCall(Arm.STUDENT, "l"), rider)}


def test_an_ineligible_request_goes_to_the_teacher_alone_with_its_reason() -> None:
    facts = RequestFacts(request_id="q", cluster="k", ineligible="tools")
    made = decide(POLICY, canary(0.9), facts, ready=["c"])
    assert (made.arm, made.shadows, made.eligible, made.reason, made.propensity) == (
        Arm.TEACHER,
        (),
        False,
        "tools",
        1.0,
    )
