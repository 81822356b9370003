"""Order within a batch, repetition, restarts and looks change no decision; another policy's are shown apart."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_story import POLICY, Story

from router import (
    Arm,
    ConfigError,
    EventKind,
    Evidence,
    Metric,
    Observation,
    RouteEvent,
    RoutePolicy,
    Stage,
    batches,
    decode_state,
    differences,
    encode_state,
    fold,
    initial,
    recompute,
    status,
    view,
    what_if,
)

Records = list[tuple[int, Evidence]]


ROLLOUT = {"rollout": {"steps": [0.5, 1.0], "min_dwell": "5s", "min_requests": 30}}
KINDS: dict[str, dict[str, object]] = {
    "whole": {},
    "selective": {"selective": {"max_risk": 0.1, "min_coverage": 0.2}},
    "self": {"quality": {"reference": "self", "margin": 0.07, "audit_rate": 0.5}},
}


def mixed_story(seed: int, *, quality: float = 0.97, kind: str = "whole", other: bool = False) -> Story:
    """A rollout with several requests a tick, of which some are lost, slow or failed; pairs of what `kind` measures.
    `other`: with another policy in the middle, whose pairs come a little before it does."""
    rng = random.Random(seed)
    story = Story(**ROLLOUT, **KINDS[kind])
    measure = ""
    story.event(EventKind.CANDIDATE, "v", gate="passed", thresholds=[0.8, 0.4])
    story.event(EventKind.READY, "v")
    for n in range(250):
        if other and n == 120:
            changed = RoutePolicy.model_validate({**POLICY, **ROLLOUT, "quality": {"score": "exact", "margin": 0.06}})
            measure = changed.measure
        if other and n == 123:
            story.event(EventKind.POLICY, policy=changed.model_dump(mode="json"))
        for _ in range(rng.randrange(1, 12)):
            story.at += rng.random() / 10
            arm = rng.choice([Arm.TEACHER, Arm.STUDENT])
            value, sure = float(rng.random() < quality), rng.random()
            against = 1.0 if kind != "self" or measure else float(rng.random() < 0.9)
            more = {"confidence": sure, "inclusion": rng.choice([0.05, 1.0]), "measure": measure}
            story.seen(Metric.QUALITY, value, against, arm=arm, **more)
            story.seen(Metric.ERROR, float(rng.random() < 0.002), arm=arm)
            story.seen(Metric.LATENCY, rng.choice([40.0, 60.0, 90.0]), 80.0, arm=arm)
        story.tick(0.5)
    return story


def shuffled(records: Records, rng: random.Random, *, repeat: bool) -> Records:
    """The same records, every batch's observations in another order, some of them twice."""
    found: list[Evidence] = []
    for batch in batches(records):
        seen = [record for _, record in batch if isinstance(record, Observation)]
        if repeat and seen:
            seen += rng.choices(seen, k=3)
        rng.shuffle(seen)
        found += [*seen, *(record for _, record in batch if isinstance(record, RouteEvent))]
    return list(enumerate(found))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    repeat=st.booleans(),
    quality=st.sampled_from([1.0, 0.97, 0.8]),
    kind=st.sampled_from([*KINDS]),
    other=st.booleans(),
)
def test_order_and_repetition_within_a_batch_change_no_decision_and_no_evidence(
    seed: int, repeat: bool, quality: float, kind: str, other: bool
) -> None:
    story = mixed_story(seed, quality=quality, kind=kind, other=other)
    made = recompute("r", story.records)
    other = recompute("r", shuffled(story.records, random.Random(seed), repeat=repeat))
    assert len(made) > 1
    assert [(t.at, t.version, t.after, t.cause, t.evidence) for t in other] == [
        (t.at, t.version, t.after, t.cause, t.evidence) for t in made
    ]


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.sets(st.integers(1, 200), max_size=8),
    kind=st.sampled_from([*KINDS]),
    other=st.booleans(),
)
def test_restarts_at_any_batch_and_looks_between_change_nothing(
    seed: int, cuts: set[int], kind: str, other: bool
) -> None:
    story = mixed_story(seed, kind=kind, other=other)
    state, decided = initial("r"), []
    for n, batch in enumerate(batches(story.records)):
        if n in cuts:
            state = decode_state(encode_state(state))
        status(state), view(state)  # a look
        state, made = fold(state, batch)
        decided += made
    assert decided == recompute("r", story.records) == story.decided
    assert encode_state(state) == encode_state(story.state)


def test_a_replay_from_a_kept_state_reproduces_what_came_after_it() -> None:
    story = mixed_story(3)
    parts = list(batches(story.records))
    state = initial("r")
    for batch in parts[:150]:
        state, _ = fold(state, batch)
    rest = [entry for batch in parts[150:] for entry in batch]
    later = [t for t in story.decided if t.offset >= rest[0][0]]
    assert later
    assert differences("r", rest, later, state) == []


def test_only_ticks_move_the_clock_so_no_observation_from_the_future_is_a_dwell() -> None:
    story = Story(rollout={"steps": [0.5, 1.0], "min_dwell": "1h", "min_requests": 0})
    story.to_canary()
    dwelt = story.state.trial.dwell
    story.at += 1e6
    for _ in range(2000):
        story.seen(Metric.ERROR, 0.0, arm=Arm.STUDENT)
    assert story.state.trial.dwell == dwelt
    story.tick()
    assert story.state.trial.dwell == dwelt + 60.0
    story.at -= 2e6
    story.tick()
    story.tick(10.0)
    assert story.state.trial.dwell == dwelt + 70.0


def test_observations_of_an_earlier_time_in_service_promote_nothing() -> None:
    """Shadow pairs that arrive late, when the version is a canary already or gone, are no evidence of its ramp."""
    story = Story()
    story.to_canary()
    before = story.state.trial
    for _ in range(300):
        story.seen(Metric.QUALITY, 1.0, 1.0, arm=Arm.TEACHER)
        story.seen(Metric.LATENCY, 1.0, 80.0, arm=Arm.TEACHER)
    story.tick()
    assert (story.state.trial.pairs, story.state.trial.slo.n) == (before.pairs, before.slo.n)
    story.operate("rollback", "v")
    story.serves(300)
    assert story.stage() is Stage.ROLLED_BACK


def test_what_if_folds_the_same_evidence_under_another_policy() -> None:
    story = Story()
    story.arrive()
    for _ in range(40):
        story.pairs(1, good=False)
        story.pairs(24)
    assert story.stage() is Stage.CANARY
    strict = recompute("r", what_if(story.records, {"margin": 0.02}))
    assert [t.after for t in strict] == [Stage.SHADOW, Stage.REJECTED]
    loose = recompute("r", what_if(story.records, {"quality.margin": 0.2}))
    assert loose[1].offset < story.decided[1].offset
    assert recompute("r", what_if(story.records, {})) == story.decided
    preset = recompute("r", what_if(story.records, {"rollout.preset": "fast"}))
    assert preset[-1].fraction == 0.05


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margn": 0.03}, "'margn' is no key of a policy that decides; there are: quality.test"),
        ({"score": "exact"}, "quality.score decides which evidence is gathered"),
        ({"rollout.parallel": "48h"}, "rollout.parallel decides which evidence is gathered"),
        ({"rollout.holdback": 0.2}, "rollout.holdback decides which evidence is gathered"),
        ({"quality.slo_ms": 3}, "no key of a policy"),
        ({"margin": 3}, "no policy could say so: quality.margin: Input should be less than 1"),
        ({"capture.rate": 0.5}, "no key of a policy that decides"),
    ],
)
def test_a_what_if_that_no_policy_could_say_is_refused(changes: dict[str, object], said: str) -> None:
    story = Story()
    with pytest.raises(ConfigError, match=said):
        recompute("r", what_if(story.records, changes))


def test_a_candidate_that_came_before_the_first_policy_starts_with_it() -> None:
    story = Story()
    policy = story.records[0][1]
    story.records, story.state, story._folded = [], initial("r"), 0
    story.arrive()
    assert story.stage() is Stage.CANDIDATE
    story.tell(policy)
    assert story.stage() is Stage.SHADOW


def test_a_state_before_any_policy_shows_an_empty_rollout() -> None:
    state, made = fold(initial("r"), [(1, RouteEvent(id="e", at=1.0, route="r", kind=EventKind.READY, version="v"))])
    assert (view(state).challenger, made) == (None, [])
    assert state.versions["v"].ready
