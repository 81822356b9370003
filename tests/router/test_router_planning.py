"""What a plan is made of: simulated tests against known answers, and stages against arithmetic by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest

from router import Arm, Rollout, RoutePolicy, Stage, decide
from router.decision import RequestFacts
from router.planning import (
    FIRST,
    PATHS,
    Expected,
    accepted_pairs,
    clean_requests,
    differences,
    latency_pairs,
    quality_pairs,
    run,
    slo_blocks,
    slow_shares,
)
from router.planning_harm import pairs_to_alarm, worse, wrong
from router.planning_ramp import Traffic, fraction, pair_rate, ramp, shadow, shadowed
from router.policy import LatencyPolicy
from router.policy_quality import QualityPolicy
from router.sequential import Mixture, quality
from router.sequential.selective import Selective

DAY = 86400.0
GOOD = Expected(loss=0.033, slow=0.01)


def policy(**fields: object) -> RoutePolicy:
    return RoutePolicy.model_validate({"teachers": ["o/m"], "student": {}, **fields})


def per_day(requests: float, **fields: object) -> Traffic:
    return Traffic(per_second=requests / DAY, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("margin", "disagreement", "known"), [(0.07, 0.033, 331), (0.10, 0.01, 109)])
def test_the_simulated_median_of_pairs_is_the_known_one(margin: float, disagreement: float, known: int) -> None:
    """Known for the geometric grid of 12 bets; the test that rollouts use must not be slower."""
    expected = Expected(loss=disagreement)
    grid = run(
        lambda d: quality.passes_on_grid(d, margin),
        lambda rng, shape: differences(rng, shape, expected),
        log_boundary=math.log(20.0),
        most=5000,
        seed=1,
    )
    assert np.median(grid.to_pass) == pytest.approx(known, rel=0.15)
    assert np.median(quality_pairs(QualityPolicy(margin=margin), expected, 0.05).to_pass) <= np.median(grid.to_pass)


def test_a_path_passes_where_the_real_test_passes() -> None:
    found = quality_pairs(QualityPolicy(margin=0.07), GOOD, 0.05, seed=9)
    first = differences(np.random.default_rng(9), (PATHS, FIRST), GOOD)
    passed = np.flatnonzero(found.passed & (found.n <= FIRST))
    assert 10 < len(passed) < PATHS
    for i in passed[:20]:
        factors = quality.passes(first[i, : found.n[i]], 0.07)
        before = Mixture().fold(factors[:-1])
        assert not before.reached(math.log(20.0))
        assert before.fold(factors[-1:]).reached(math.log(20.0))


def test_a_wider_margin_takes_fewer_pairs_and_is_passed_more_often() -> None:
    ends = [quality_pairs(QualityPolicy(margin=m), GOOD, 0.05).to_pass for m in (0.04, 0.05, 0.07, 0.1)]
    assert all(np.median(tight) > np.median(wide) for tight, wide in pairwise(ends))
    assert np.isfinite(ends[0]).mean() < np.isfinite(ends[1]).mean() < np.isfinite(ends[-1]).mean() == 1.0


def test_a_student_at_the_margin_passes_at_most_at_alpha_and_a_worse_one_ends_soon() -> None:
    rules = QualityPolicy(margin=0.07)
    assert quality_pairs(rules, Expected(loss=0.07), 0.05).passed.mean() <= 0.05
    bad = quality_pairs(rules, Expected(loss=0.3), 0.05)
    assert not bad.passed.any()
    assert np.median(bad.n) < 100  # proven inferior


def test_a_test_that_would_need_more_than_n_max_is_given_up_after_a_fifth_of_it() -> None:
    lost = quality_pairs(QualityPolicy(margin=0.07, n_max=2000), Expected(loss=0.07), 0.05)
    assert np.median(lost.n) == 400
    late = quality_pairs(QualityPolicy(margin=0.07, n_max=150), GOOD, 0.05)
    assert late.n.max() <= 150
    assert 0.0 < late.passed.mean() < 0.9


def test_the_sprt_of_a_policy_is_the_one_that_is_simulated_with_its_lower_boundary() -> None:
    rules = QualityPolicy(test="sprt", good_rate=0.967, margin=0.07)
    found = quality_pairs(rules, GOOD, 0.05)
    assert np.median(found.to_pass) < np.median(quality_pairs(QualityPolicy(margin=0.07), GOOD, 0.05).to_pass)
    lost = quality_pairs(rules, Expected(loss=0.07), 0.05)
    assert np.median(lost.n) < 300  # Wald's lower boundary ends it; no rate rule is due before 1,000 pairs


def test_a_threshold_is_certified_where_the_real_test_certifies_it() -> None:
    found = accepted_pairs(0.05, 0.005, 0.05, 5000, seed=3)
    losses = (np.random.default_rng(3).random((PATHS, FIRST)) < 0.005).astype(float)
    passed = np.flatnonzero(found.passed & (found.n <= FIRST))[:10]
    assert len(passed) == 10
    for i in passed:
        for n, certified in ((found.n[i] - 1, False), (found.n[i], True)):
            folded = Selective.start((0.5,)).fold(np.ones(n), losses[i, :n], np.ones(n), max_risk=0.05, alpha=0.05)
            assert (folded.in_force is not None) is certified


def test_paired_latency_needs_fewer_pairs_the_faster_the_student_is() -> None:
    ends = [latency_pairs(LatencyPolicy(margin=0.2), s, 0.05, 5000) for s in (0.1, 0.3, 0.5)]
    medians = [float(np.median(end.to_pass)) for end in ends]
    assert medians[0] < medians[1] < medians[2] == math.inf
    assert latency_pairs(LatencyPolicy(), 0.0, 0.05, 5000).n.max() < 15


def test_shares_of_slow_answers_have_their_mean_however_empty_the_blocks_are() -> None:
    for per_block in (1e-6, 0.5, 30.0):
        shares = slow_shares(np.random.default_rng(1), (400, 500), per_block, 0.3)
        assert shares.mean() == pytest.approx(0.3, abs=0.01)
    assert set(np.unique(slow_shares(np.random.default_rng(1), (100, 100), 1e-6, 0.3))) == {0.0, 1.0}


def test_alpha_split_over_steps_costs_blocks_and_clean_requests_are_the_known_1150() -> None:
    one, five = (slo_blocks(0.9, 0.0, 0.05 / k, 1.0, 5000, seed=1).n for k in (1, 5))
    assert five[0] == 73
    assert one[0] < five[0]
    assert clean_requests(0.005, 0.0, 0.05, 5000).n[0] == pytest.approx(1150, rel=0.01)
    assert not clean_requests(0.005, 0.0, 0.05, 1000).passed.any()


def test_failures_cost_requests() -> None:
    """A failure in 100,000 requests leaves nearly every path clean."""
    clean, nearly, often = (clean_requests(0.005, failing, 0.05, 2500) for failing in (0.0, 1e-5, 0.001))
    assert np.median(nearly.n) == clean.n[0]
    assert nearly.n.max() > clean.n[0]
    assert np.median(often.to_pass) > 1.2 * clean.n[0]
    assert clean_requests(0.005, 0.01, 0.05, 2500).passed.mean() <= 0.05


def test_with_traffic_to_spare_each_step_lasts_its_dwell_and_shows_its_share() -> None:
    rules = policy(rollout={"steps": [0.1, 0.5], "min_dwell": ["1d", "2d"]})
    first, second = ramp(rules, GOOD, 0.05, per_day(1e6))
    assert set(first.seconds) == {DAY}
    assert set(second.seconds) == {2 * DAY}
    assert first.limit == second.limit == "dwell"
    assert first.requests[0] == pytest.approx(100_000)
    assert second.requests[0] == pytest.approx(1_000_000)


def test_the_last_step_serves_all_but_the_holdback() -> None:
    rules = policy(rollout={"holdback": 0.1})
    assert [fraction(rules, step) for step in (0, 5)] == [0.05, 0.9]


def test_with_little_traffic_a_step_waits_for_requests_or_for_blocks_that_hold_one() -> None:
    clean = Expected(loss=0.0)
    rules = policy(rollout={"steps": [0.5, 1.0], "min_dwell": 0, "min_requests": 1000, "holdback": 0})
    first, last = ramp(rules, clean, 0.05, per_day(100))
    assert first.seconds[0] == pytest.approx(20 * DAY)  # 1,000 requests at 50 a day
    assert first.limit == "requests"
    blocks = slo_blocks(0.95, 0.0, 0.025, 50 / 8640, 5000, seed=10).n[0]
    assert first.needs["blocks"] == pytest.approx(blocks / 50 * DAY, rel=0.01)  # a block is seldom without company
    assert last.limit == "requests"


def test_the_last_step_waits_for_the_clean_requests_that_earlier_steps_have_not_brought() -> None:
    clean = Expected(loss=0.0)
    rules = policy(rollout={"steps": [0.1, 1.0], "min_dwell": [DAY, 0], "min_requests": 0, "holdback": 0})
    first, last = ramp(rules, clean, 0.05, per_day(5000))
    needed = clean_requests(0.005, 0.0, 0.05, 5000).n[0]
    assert first.requests[0] == pytest.approx(500)
    assert last.needs["errors"] == pytest.approx((needed - 500) / 5000 * DAY)
    assert last.limit == "errors"


def test_a_probe_lasts_until_the_slo_is_kept_and_stands_before_every_step() -> None:
    rules = {"steps": [0.1, 0.5], "min_dwell": 0, "min_requests": 0}
    without, probed = (
        [shadow(p, GOOD, 0.05, per_day(1e6)).stage, *ramp(p, GOOD, 0.05, per_day(1e6))]
        for p in (policy(rollout=rules), policy(rollout={**rules, "probe": "10h"}))
    )
    more = [np.median(b.seconds - a.seconds) for a, b in zip(without, probed, strict=True)]
    assert more == pytest.approx([36_000, 36_000, 0.0])
    assert "probe" in probed[0].needs


def test_shadow_lasts_until_both_tests_have_passed() -> None:
    found = shadow(policy(), GOOD, 0.05, per_day(DAY))  # a pair a second
    both = np.maximum(found.pairs.n, latency_pairs(policy().latency, GOOD.slower, 0.05, 5000).n)
    assert np.array_equal(found.stage.seconds, both)
    assert found.stage.limit == "pairs"
    half = shadow(policy(quality={"shadow_rate": 0.5}), GOOD, 0.05, per_day(DAY))
    assert np.allclose(half.stage.seconds, 2 * both)


def test_a_student_that_is_slower_never_leaves_shadow_and_the_decision_still_comes() -> None:
    slow = Expected(loss=0.0, slower=0.6)
    found = shadow(policy(), slow, 0.05, per_day(DAY))
    assert np.isfinite(found.stage.seconds).mean() <= 0.05
    assert np.all(found.decided <= 5000)


def test_a_selective_student_needs_more_pairs_the_less_it_is_sure_of() -> None:
    rules = policy(selective={})
    sure = Expected(loss=0.005)
    ends = [shadow(rules, sure, 0.05, per_day(DAY, coverage=c)).pairs for c in (1.0, 0.5)]
    assert np.median(ends[1].to_pass) == pytest.approx(2 * np.median(ends[0].to_pass), rel=0.01)
    whole, half = (ramp(rules, sure, 0.05, per_day(1e5, coverage=c)) for c in (1.0, 0.5))
    assert np.allclose(whole[0].seconds, half[0].seconds)  # a deferred request is a request of the student
    assert np.allclose(whole[0].requests, 2 * half[0].requests)  # but no answer


def pairs_by_decisions(rules: RoutePolicy, rollout: Rollout, version: str) -> float:
    """The share of requests that yield a pair of a version, by the decisions themselves."""
    found, n, teachers = 0, 20_000, 2 if rules.quality.reference == "self" else 1
    for i in range(n):
        facts = RequestFacts(request_id=f"r{i}", cluster=f"c{i}")
        made = decide(rules, rollout, facts, ready={"new", "old"})
        arms = [made.arm, *(call.arm for call in made.shadows)]
        versions = [made.version, *(call.version for call in made.shadows)]
        found += version in versions and arms.count(Arm.TEACHER) >= teachers
    return found / n


@pytest.mark.parametrize("reference", ["agreement", "self"])
@pytest.mark.parametrize(
    ("rollout", "share"),
    [
        (Rollout(route="r", challenger="new", stage=Stage.SHADOW), None),
        (Rollout(route="r", challenger="new", stage=Stage.SHADOW, live="old"), None),
        (Rollout(route="r", challenger="new", stage=Stage.CANARY, fraction=0.25), 0.25),
        (Rollout(route="r", challenger=None, live="new"), 0.9),
    ],
)
def test_pairs_come_as_often_as_decisions_make_them(reference: str, rollout: Rollout, share: float | None) -> None:
    rules = policy(quality={"reference": reference, "audit_rate": 0.2, "shadow_rate": 0.6}, rollout={"holdback": 0.1})
    traffic = per_day(1.0, live=rollout.live == "old")
    found = pairs_by_decisions(rules, rollout, "new")
    assert pair_rate(rules, traffic, share) == pytest.approx(found, abs=0.01)
    if share is None and reference == "agreement":
        assert shadowed(rules, traffic) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(("points", "known"), [(0.05, 506), (0.20, 90), (None, 19)])
def test_harm_is_seen_after_the_known_number_of_pairs(points: float | None, known: int) -> None:
    bad = wrong() if points is None else worse(policy(), GOOD, points)
    assert np.median(pairs_to_alarm(policy(), GOOD, bad)) == pytest.approx(known, rel=0.15)


def test_a_student_above_its_margin_is_watched_at_its_own_level_too() -> None:
    """5 points below the level of a perfect student is not below a margin of 10 points, and is seen all the same."""
    rules = policy(quality={"margin": 0.1})
    seen = pairs_to_alarm(rules, Expected(loss=0.0), Expected(loss=0.09))
    assert np.isfinite(seen).mean() > 0.9


def test_a_selective_student_is_watched_at_its_risk() -> None:
    rules = policy(selective={"max_risk": 0.03})
    assert worse(rules, Expected(loss=0.01), 0.05).loss == pytest.approx(0.08)
    assert np.median(pairs_to_alarm(rules, Expected(loss=0.01), wrong())) < 10
