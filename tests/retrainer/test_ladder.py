"""What a ladder says of its rungs: cost as served, and which are on the frontier."""

import time
from pathlib import Path
from typing import Any

import pytest
from daemon_run import config

from retort.cycles import cycles
from retrainer.audit import note
from retrainer.ladder import frontier, told
from retrainer.state import CycleState, Request


def stored(**rungs: tuple[float, float] | None) -> dict[str, Any]:
    """A cycle's phases: of each rung (agreement, ms), None where its gate refused before the export."""
    phases: dict[str, Any] = {}
    for name, known in rungs.items():
        agreement, ms = known or (0.5, 0.0)
        report = {"agreement": agreement, "lower": agreement, "upper": agreement, "outcomes": [0] * 10}
        # ten answers that were guessed right took a hundredth of a second in all
        served = {**report, "seconds": 0.01, "latency": {"n": 20, "p50": ms, "p95": 2 * ms, "p99": 2 * ms}}
        verdict = {"gate": "passed" if known else "refused", "mode": "whole", "reasons": [] if known else ["weak"]}
        phases |= {f"{name}.evaluate_student": report, f"{name}.gate": verdict}
        if known:
            phases |= {
                f"{name}.evaluate_quantized": served,
                f"{name}.export": {"bytes": 10},
                f"{name}.compare": {"costs": {"teacher": 1.0, "student": ms / 1e6}},
            }
    return phases


def test_a_rungs_cost_is_what_an_answer_takes_when_nothing_is_guessed() -> None:
    (step,) = frontier(stored(lora=(0.9, 250.0)), {}, alone="lora")
    assert (step.ms, step.usd_per_1000) == (250.0, pytest.approx(0.25))
    assert "250.0 ms an answer, 0.0 MB, 0.2500 USD for 1,000" in told({"closed": False, "reason": "-"}, [step])[-1]


def test_on_the_frontier_is_what_no_other_rung_is_better_than() -> None:
    phases = stored(
        refused=None, quick=(0.8, 1.0), slow=(0.8, 2.0), poor=(0.7, 1.0), best=(0.95, 300.0), same=(0.8, 1.0)
    )
    steps = frontier(phases, {}, alone="lora")
    assert {s.rung for s in steps if s.frontier} == {"quick", "same", "best"}


def test_the_list_of_cycles_has_the_rungs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    settings = config(tmp_path / "s")
    policy = settings.routes["colours"].model_dump(mode="json")
    state = CycleState(request=Request(cycle_id="c1", route="colours"), policy=policy, started_at=time.time())
    state.phases = stored(linear=None, encoder=(0.9, 2.0))
    note(settings.state, [state])
    state.outcome = "registered"
    note(settings.state, [state])
    assert cycles(settings, None, as_json=False) == 0
    said = capsys.readouterr().out
    assert "students of c1, cheap to dear" in said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("encoder")]
    assert row == ["encoder", "90.0%", "(90.0%", "-", "90.0%)", "2.0", "0.0020", "0.0", "yes", "passed", "(whole)"]
