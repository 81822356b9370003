"""Decisions are pure, sticky, and their probabilities are the true ones."""

from collections import Counter
from itertools import pairwise

import pytest
from decide_cases import NOISE, POLICY, READY, ROLLOUTS, SPREAD, N, canary, decisions, policy, shadow
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Arm, RequestFacts, Rollout, Stage, decide


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


@settings(deadline=None)
@given(st.text(min_size=1), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_a_cluster_in_at_a_small_step_stays_in_at_every_larger_one(cluster: str, a: float, b: float) -> None:
    small, large = sorted((a, b))
    facts = RequestFacts(request_id="q", cluster=cluster)
    if decide(POLICY, canary(small), facts, ready=["c"]).version == "c":
        assert decide(POLICY, canary(large), facts, ready=["c"]).version == "c"


@settings(deadline=None)
@given(st.text(min_size=1), st.floats(0.0, 0.9))
def test_the_place_of_a_cluster_does_not_depend_on_the_version(cluster: str, fraction: float) -> None:
    facts = RequestFacts(request_id="q", cluster=cluster)
    other = Rollout(route="r", challenger="d", stage=Stage.CANARY, fraction=fraction)
    arms = {decide(POLICY, rollout, facts, ready=["c", "d"]).arm for rollout in (canary(fraction), other)}
    assert len(arms) == 1


def test_a_version_that_is_not_ready_gets_no_traffic_and_no_shadow() -> None:
    for rollout in (canary(0.5), shadow(), Rollout(route="r", live="l")):
        assert {(d.arm, d.shadows) for d in decisions(rollout, ready=(), n=500)} == {(Arm.TEACHER, ())}


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


@settings(deadline=None)
@given(ROLLOUTS, READY, st.floats(0.0, 0.49), st.sampled_from(["agreement", "self"]))
def test_the_shares_of_the_arms_sum_to_one_and_are_what_they_are_said_to_be(
    rollout: Rollout, ready: set[str], holdback: float, reference: str
) -> None:
    by = policy(holdback=holdback, reference=reference)
    made = [decide(by, rollout, facts, ready=ready) for facts in SPREAD]
    said = {d.version: d.propensity for d in made}
    assert {(d.version, d.propensity) for d in made} == set(said.items())
    assert all(0.0 < p <= 1.0 for p in said.values())
    counted = Counter(d.version for d in made)
    for version, propensity in said.items():
        assert counted[version] / len(made) == pytest.approx(propensity, abs=0.005)
    assert sum(said.values()) == pytest.approx(1.0, abs=0.005)  # an arm smaller than the spread may be missed


@settings(deadline=None)
@given(ROLLOUTS, READY, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4))
def test_while_the_canary_grows_its_clusters_stay_and_the_teacher_gets_no_new_one(
    rollout: Rollout, ready: set[str], fractions: list[float]
) -> None:
    grown = []
    for fraction in sorted(fractions):
        step = Rollout(route="r", live=rollout.live, challenger="c", stage=Stage.CANARY, fraction=fraction)
        grown.append([decide(POLICY, step, facts, ready=ready).version for facts in SPREAD[::10]])
    for before, after in pairwise(grown):
        for was, now in zip(before, after, strict=True):
            if "c" in ready:
                assert now in {"c": ("c",), "l": ("l", "c"), None: (None, "c")}[was]
            else:  # the share of a version that is not ready is the teacher's
                assert now in {"l": ("l", None), None: (None,)}[was]


def test_each_version_serves_by_its_own_threshold() -> None:
    made = decisions(canary(0.5, live="l", challenger_threshold=0.7, live_threshold=0.6), n=500)
    assert {(d.version, d.threshold) for d in made} == {("c", 0.7), ("l", 0.6), (None, None)}
    made = decisions(canary(0.5, live="l", live_threshold=0.6), n=500)
    assert {(d.version, d.threshold) for d in made} == {("c", None), ("l", 0.6), (None, None)}


@pytest.mark.parametrize(
    ("rollout", "ready", "belongs"),
    [
        (Rollout(route="r"), ("c", "l"), {None: None}),
        (shadow(), ("c", "l"), {None: None}),
        (Rollout(route="r", live="l"), ("c", "l"), {"l": "l", None: "l"}),
        (shadow(live="l"), ("c", "l"), {"l": "l", None: "l"}),
        (canary(0.5), ("c", "l"), {"c": "c", None: "c"}),
        (canary(0.5, live="l"), ("c", "l"), {"c": "c", "l": None, None: "c"}),
        (canary(0.5, live="l"), ("l",), {"l": "l", None: "l"}),
        (canary(0.5, live="l"), ("c",), {"c": "c", None: "c"}),
        (canary(0.5, live="l"), (), {None: None}),
        (canary(0.0, live="l"), ("c", "l"), {"l": "l", None: "l"}),
        (canary(0.0), ("c", "l"), {None: None}),
        (canary(1.0, live="l"), ("c", "l"), {"c": "c", None: "c"}),
    ],
)
def test_outcomes_belong_to_the_version_that_stands_against_the_teacher(
    rollout: Rollout, ready: tuple[str, ...], belongs: dict[str | None, str | None]
) -> None:
    made = decisions(rollout, ready=ready, n=500)
    assert {(d.version, d.in_service) for d in made} == set(belongs.items())
    for d in made:
        if d.in_service is not None and d.version is None:
            assert d.propensity < 1.0  # both of its arms have a share


def test_an_ineligible_request_belongs_to_no_version() -> None:
    facts = RequestFacts(request_id="q", cluster="k", ineligible="tools")
    made = decide(POLICY, canary(0.9, probe=1.0, challenger_threshold=0.5), facts, ready=["c"])
    assert (made.in_service, made.threshold, made.audited, made.shadows) == (None, None, 1.0, ())
