"""Who is asked besides the one who serves, and how often."""

from collections import Counter, defaultdict

import pytest
from decide_cases import NOISE, POLICY, READY, ROLLOUTS, SELF, SPREAD, C, N, T, canary, decisions, policy, shadow, share
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router import Arm, Rollout, ShadowCall, decide
from router.decide import unit


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


@settings(deadline=None)
@given(ROLLOUTS, READY, st.sampled_from(["agreement", "self"]))
def test_a_decision_is_the_same_each_time_and_asks_nobody_twice_but_the_teacher(
    rollout: Rollout, ready: set[str], reference: str
) -> None:
    by = policy(reference=reference)
    for facts in SPREAD[::25]:
        made = decide(by, rollout, facts, ready=ready)
        assert made == decide(by, rollout, facts, ready=ready)
        students = [shadow.version for shadow in made.shadows if shadow.arm is Arm.STUDENT]
        assert len(students) == len(set(students) - {made.version})
        assert set(students) <= ready
        teachers = made.shadows.count(T) + (made.arm is Arm.TEACHER)
        assert teachers <= (2 if reference == "self" else 1)


@settings(deadline=None)
@given(ROLLOUTS, READY, st.sampled_from(["agreement", "self"]))
def test_whoever_is_asked_besides_but_for_a_probe_makes_a_pair_of_a_student_and_the_teacher(
    rollout: Rollout, ready: set[str], reference: str
) -> None:
    by, unprobed = policy(reference=reference), replace(rollout, probe=0.0)
    for facts in SPREAD[::25]:
        made = decide(by, unprobed, facts, ready=ready)
        if made.shadows:
            assert T in made.shadows or made.arm is Arm.TEACHER
            assert made.version or any(shadow.arm is Arm.STUDENT for shadow in made.shadows)


def test_a_probed_canary_is_asked_besides_up_to_its_next_share_and_nowhere_else() -> None:
    for live in (None, "l"):
        for probe, until in ((0.4, 0.4), (1.0, 0.9), (0.1, 0.1)):
            for facts in SPREAD:
                made = decide(POLICY, canary(0.1, live=live, probe=probe), facts, ready=["c", "l"])
                place = unit("arm", "r", facts.cluster)
                assert made.shadows.count(C) == (0.1 <= place < until or place >= 0.9)
                assert made.version == ("c" if place < 0.1 else live if place < 0.9 else None)


def test_a_probe_needs_a_canary_that_is_ready() -> None:
    assert not any(C in d.shadows for d in decisions(canary(0.1, live="l", probe=1.0), ready=("l",)))
    assert not any(d.shadows for d in decisions(canary(0.1, probe=1.0), ready=()))
    assert not any(C in d.shadows for d in decisions(Rollout(route="r", live="l", challenger="c", probe=1.0)))


@pytest.mark.parametrize(("probe", "rate"), [(0.0, 0.5), (0.3, 0.5), (0.8, 0.8), (1.0, 1.0)])
def test_a_probe_raises_the_share_that_is_shadowed_to_its_own(probe: float, rate: float) -> None:
    assert share(decisions(shadow(probe=probe)), asked=C) == pytest.approx(rate, abs=NOISE)


def test_beside_a_live_student_a_probed_challenger_rides_on_at_least_the_probes_share() -> None:
    made = decisions(shadow(live="l", probe=0.6))
    served = [d for d in made if d.version == "l"]
    assert all(C in d.shadows for d in served if T in d.shadows)
    alone = [d for d in served if T not in d.shadows]
    assert share(alone, asked=C) == pytest.approx(0.6, abs=NOISE)
    assert share(served, asked=T) == pytest.approx(0.2, abs=NOISE)


def test_students_answers_say_with_which_probability_they_are_audited() -> None:
    assert {(d.version, d.audited) for d in decisions(canary(0.5, live="l"))} == {("c", 0.2), ("l", 0.2), (None, 1.0)}


def test_all_answers_of_a_live_version_may_be_audited_and_only_its_own() -> None:
    made = decisions(canary(0.5, live="l", audit_all=True))
    assert {(d.version, d.audited) for d in made} == {("c", 0.2), ("l", 1.0), (None, 1.0)}
    assert {d.shadows for d in made if d.version == "l"} == {(T,)}
    assert share([d for d in made if d.version == "c"], asked=T) == pytest.approx(0.2, abs=NOISE)


def test_each_decision_says_how_likely_the_teacher_is_asked_whichever_arm_is_drawn() -> None:
    for rollout in (
        canary(0.5, live="l"),
        canary(0.5, live="l", audit_all=True),
        canary(0.3),
        shadow(),
        shadow(live="l"),
    ):
        made = decisions(rollout)
        asked = [d for d in made if d.arm is Arm.TEACHER or T in d.shadows]
        (answered,) = {d.answered for d in made}
        assert len(asked) / len(made) == pytest.approx(answered, abs=NOISE)


def test_where_everything_is_audited_the_version_in_shadow_rides_at_its_rate_and_on_the_budgeted_audits() -> None:
    made = [d for d in decisions(shadow(live="l", audit_all=True)) if d.version == "l"]
    assert {d.shadows for d in made} == {(T,), (T, C)}
    assert share(made, asked=C) == pytest.approx(0.5 + 0.5 * 0.2, abs=NOISE)


def test_with_self_the_teacher_is_asked_twice_of_an_audited_answer_and_again_of_a_shadowed_one() -> None:
    served = [d for d in decisions(canary(0.8), by=SELF) if d.version == "c"]
    assert {d.shadows for d in served} == {(), (T, T)}
    assert share(served, asked=T) == pytest.approx(0.2, abs=NOISE)
    shadowed = [d for d in decisions(shadow(), by=SELF) if d.shadows]
    assert {d.shadows for d in shadowed} == {(C,), (C, T)}
    assert share(shadowed, asked=T) == pytest.approx(0.2, abs=0.045)
    assert share(decisions(shadow(), by=SELF), asked=C) == pytest.approx(0.5, abs=NOISE)
    assert not any(d.shadows for d in decisions(Rollout(route="r"), by=SELF))


def test_with_self_a_full_audit_asks_once_and_twice_at_the_audits_rate() -> None:
    made = decisions(Rollout(route="r", live="l", audit_all=True), by=SELF)
    counted = Counter(d.shadows for d in made if d.version == "l")
    assert set(counted) == {(T,), (T, T)}
    assert counted[T, T] / counted.total() == pytest.approx(0.2, abs=NOISE)


def test_the_draws_of_a_request_are_independent_of_each_other_and_of_its_place() -> None:
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(N):
        seen["arm"].append(unit("arm", "r", f"{number}"))
        for name in ("audit", "shadow", "second"):
            seen[name].append(unit(name, "r", f"{number}"))
    for name, values in seen.items():
        for other, others in seen.items():
            both = sum(a < 0.5 and b < 0.5 for a, b in zip(values, others, strict=True)) / N
            assert both == pytest.approx(0.5 if name == other else 0.25, abs=NOISE)
