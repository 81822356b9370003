"""What a ladder says of its rungs: cost as served, and which are on the frontier."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_run import config

from retort.cycles import cycles
from retrainer.audit import note
from retrainer.begin import begin
from retrainer.cycle import run_request
from retrainer.errors import PhaseElsewhere
from retrainer.evaluation.assess import Assessment
from retrainer.evaluation.cost import Costs
from retrainer.evaluation.evaluate import Report
from retrainer.evaluation.gate import Verdict
from retrainer.ladder import costs, frontier, told
from retrainer.phases_gate import Compared
from retrainer.state import Cycles, CycleState, Request
from retrainer.worker import AT_HOME, HEAVY, _Nowhere
from router.config import Config
from router.events import Events


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
    (step,) = frontier(stored(lora=(0.9, 250.0)), alone="lora")
    assert (step.ms, step.usd_per_1000) == (250.0, pytest.approx(0.25))
    assert "250.0 ms an answer, 0.0 MB, 0.2500 USD for 1,000" in told({"closed": False, "reason": "-"}, [step])[-1]


def test_on_the_frontier_is_what_no_other_rung_is_better_than() -> None:
    phases = stored(
        refused=None, quick=(0.8, 1.0), slow=(0.8, 2.0), poor=(0.7, 1.0), best=(0.95, 300.0), same=(0.8, 1.0)
    )
    steps = frontier(phases, alone="lora")
    assert {s.rung for s in steps if s.frontier} == {"quick", "same", "best"}


def test_the_frontier_is_of_what_answers_cost_and_of_time_where_no_price_is_known() -> None:
    phases = stored(hosted=(0.9, 1.0), own=(0.9, 5.0))
    phases["hosted.compare"]["costs"]["student"] = 1.0  # quick, and dear
    steps = frontier(phases, alone="lora")
    assert [s.rung for s in steps if s.frontier] == ["own"]
    assert costs(steps) == ("USD for 1,000 answers", [1000.0, pytest.approx(0.005)])
    phases["own.compare"]["costs"]["student"] = None
    steps = frontier(phases, alone="lora")
    assert [s.rung for s in steps if s.frontier] == ["hosted"]
    assert costs(steps) == ("ms an answer", [1.0, 5.0])


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


def first_rung_exported_and_then_refused(settings: Config) -> None:
    """The state of such a cycle, c1."""
    report = Report(
        n=100, agreement=0.9, lower=0.9, upper=0.9, confidence=0.95, valid_json=None, leaked=0, unfinished=0,
        reasons={}, tokens=1, seconds=1.0,
    )  # fmt: skip
    worse = msgspec.structs.replace(report, agreement=0.1, lower=0.1, upper=0.1)
    assessed = Assessment(
        method="raw", reason=None, records={}, novelty=None, whole=None, prefix=None, uncalibrated=None
    )
    results = {
        "prepare": "r",
        "train": {},
        "evaluate_base": worse,
        "evaluate_student": report,
        "gate": Verdict(gate="passed", reasons=[], checks={}),
        "export": {"bytes": 1},
        "evaluate_quantized": report,
        "assess": assessed,
        "compare": Compared(costs=Costs(teacher=None, student=None), clusters=[]),
        "safety": [],
        "gate_quantized": Verdict(gate="refused", reasons=["too slow"], checks={}),
    }
    cycles = Cycles(settings.state)
    state = begin(settings, cycles, Request(cycle_id="c1", route="colours"))
    state.phases = {"dataset": {"end": 1}, "closed": {"closed": True}, "teacher": {}}
    state.phases |= {f"linear.{name}": msgspec.to_builtins(result) for name, result in results.items()}
    cycles.save(state)


def test_a_rung_above_one_that_was_exported_and_refused_is_trained_elsewhere(tmp_path: Path) -> None:
    given = config(tmp_path / "s").model_dump(mode="json")
    given["routes"]["colours"]["student"]["recipe"] = "auto"
    settings = Config.model_validate(given)
    first_rung_exported_and_then_refused(settings)
    begun: list[str] = []

    def progress(phase: str, done: int, total: int, seconds_left: float | None) -> None:
        begun.append(phase)
        if phase == "encoder.train":
            raise TimeoutError  # it need not train to its end

    def go_on(mine: Callable[[str], bool]) -> None:
        nowhere: Any = _Nowhere()
        run_request(
            settings,
            Request(cycle_id="c1", route="colours"),
            registry=nowhere,
            interactions=nowhere,
            events=Events(),
            progress=progress,
            mine=mine,
        )

    with pytest.raises(PhaseElsewhere, match=r"encoder\.train is another process's"):
        go_on(lambda phase: phase.rpartition(".")[2] not in HEAVY)
    with pytest.raises(TimeoutError):
        go_on(lambda phase: phase.rpartition(".")[2] not in AT_HOME)
    assert list(dict.fromkeys(begun)) == ["encoder.prepare", "encoder.train"]
