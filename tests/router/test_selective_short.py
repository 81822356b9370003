"""`scripts/bench selective` in short: a few streams, and the parts that it is made of, by hand.

The full one (500 runs a simulated stream, 20,000 requests a real one) is benchmarks/results/selective.json.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import selective
import selective_plots
import selective_replays as replays
import selective_rivals as rivals
import selective_streams as streams
from selective_rollout import replay
from selective_texts import Answers


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return selective.short()


def test_safe_streams_are_served_to_nearly_what_an_oracle_would_and_unsafe_ones_are_not(
    figures: dict[str, Any],
) -> None:
    simulated = figures["simulated"]
    assert set(simulated) == {*streams.STEADY, *streams.DRIFTING}
    assert simulated["no information, half the risk"]["Retort"]["of the oracle's, mean"] == 1.0
    assert simulated["calibrated, spread"]["Retort"]["of the oracle's, mean"] > 0.7
    assert simulated["nothing is safe"]["Retort"]["coverage over the stream, mean"] == 0.0
    assert all(row["Retort"]["runs with realised risk within"] == 1.0 for row in simulated.values())


def test_the_section_student_goes_live_on_a_part_through_the_rollouts_own_code(figures: dict[str, Any]) -> None:
    section = figures["real"]["section"]
    assert section["student"]["agreement of all answers"] < 0.75
    served = section["streams"]["random, 95%"]["through the rollout"]
    assert served["coverage at last"] > 0.2
    assert min(served["agreement of each"]) >= 0.95
    assert served["decisions"][0][0][1] == "selective_and_latency_passed"
    assert served["risk bound at the end"] <= 0.05


def test_goals_and_picture_come_from_the_figures(figures: dict[str, Any], tmp_path: Path) -> None:
    goals = {goal["name"]: goal for goal in selective.judged(figures)}
    assert goals["simulated, steady: least share of runs with realised risk <= eps"]["met"]
    assert "simulated, nothing is safe: coverage of the oracle's after 10,000 pairs" not in goals
    selective_plots.draw(figures, tmp_path / "selective.png")
    assert (tmp_path / "selective.png").stat().st_size > 20_000


def test_the_oracle_takes_the_loosest_threshold_whose_mean_risk_is_allowed() -> None:
    confidence, risk = np.array([0.9, 0.8, 0.8, 0.5, 0.0]), np.array([0.0, 0.1, 0.05, 0.25, 0.0])
    assert rivals.oracle(confidence, risk, max_risk=0.051) == 0.8  # 0.15 / 3
    assert rivals.oracle(confidence, risk, max_risk=0.049) == 0.9  # those that are equal go together
    assert rivals.oracle(confidence, risk, max_risk=0.5) == 0.5  # never what is novel
    assert rivals.oracle(confidence, risk + 0.1, max_risk=0.05) == 2.0


def test_what_is_attainable_is_where_the_best_bet_wins_log_1_over_alpha() -> None:
    """Half of the answers are never lost: 100 pairs win 100 x 0.5 x -log(1 - 0.1) = 5.27 > log 20; the rest always."""
    confidence, risk = np.array([1.0] * 50 + [0.5] * 50), np.array([0.0] * 50 + [1.0] * 50)
    found = rivals.attainable(confidence, risk, max_risk=0.1, alpha=0.05, pairs=100)
    assert found == 0.5  # a lost one beside: KL(1/51 || 0.1) x 51 = 2.69, too little
    needed = math.ceil(math.log(20.0) / (-math.log(0.9) * 0.5))
    assert rivals.attainable(confidence, risk, max_risk=0.1, alpha=0.05, pairs=needed - 1) < 0.5
    assert rivals.attainable(confidence, risk, max_risk=0.1, alpha=0.05, pairs=1) == 0.0


def test_csas_rule_certifies_at_the_number_of_thresholds_over_alpha() -> None:
    confidence, loss = np.full(400, 0.8), np.zeros(400)
    force = rivals.csa(np.array([0.9, 0.7]), confidence, loss, max_risk=0.1, alpha=0.05)
    bets = np.geomspace(0.1, 0.9, 8) / 0.9
    first = next(n for n in range(400) if np.mean((1.0 + bets * 0.1) ** n) >= 40.0)
    assert force.tolist() == [0] * first + [2] * (401 - first)


def test_a_drifting_stream_favours_intents_in_turn_and_ends_with_twice_the_queries_out_of_scope() -> None:
    outside = np.array([False] * 90 + [True] * 10)
    intent = np.array([f"i{k % 10}" for k in range(90)] + ["oos"] * 10)
    held = Answers(np.ones(100), np.zeros(100), outside, intent)
    picked = held.at(replays.stream(held, "drifting", 10_000, np.random.default_rng(0)))
    first, last = picked.at(np.arange(2_000)), picked.at(np.arange(8_000, 10_000))
    assert first.outside.mean() == 0.0
    assert last.outside.mean() == pytest.approx(0.2, abs=0.03)
    counts = sorted((first.intent == f"i{k}").sum() for k in range(10))
    assert counts[-2] > 3 * counts[-3]  # two of ten intents come five times as often
    steady = held.at(replays.stream(held, "random", 10_000, np.random.default_rng(0)))
    assert steady.outside.mean() == pytest.approx(0.1, abs=0.01)


def test_a_replay_serves_only_what_is_above_the_threshold_in_force_and_only_once_certified() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.random(1_500)
    loss = (rng.random(1_500) < np.where(confidence > 0.5, 0.0, 0.5)).astype(float)
    found = replay(confidence, loss, (0.9, 0.5, 0.2), (0.4, 0.4, 0.2), max_risk=0.05, min_coverage=0.2)
    assert found.certified is not None
    assert not found.served[: found.certified].any()
    assert found.end == 0.5
    assert (found.served == (confidence >= found.at)).all()
    assert loss[found.served].mean() <= 0.05
