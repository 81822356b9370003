"""`retort evaluate`: a verdict on a student from a really trained tiny model, and nothing is registered or left."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_run import config as configured
from daemon_run import log_exchanges
from retrainer_fakes import example, interaction

from collector import open_interactions
from retort.errors import StartError
from retort.evaluate import EvaluateOptions, evaluate
from retort.studies import folder_of, forget
from retrainer.audit import entries
from retrainer.data.configured import options
from retrainer.data.dataset import build
from retrainer.data.suite import grow, suite_file
from retrainer.progress import silent
from router import Config, open_registry

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

EASY = {"learning_rate": 5e-3, "epochs": 2}


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(config: Config, **options: Any) -> tuple[int, dict[str, Any]]:
        code = evaluate(config, "colours", EvaluateOptions(**options), as_json=True)
        return code, json.loads(capsys.readouterr().out)

    return run


def without_student(state: Path, **retrain: Any) -> Config:
    """A route that nobody has set a student for, and an upstream that says it may be learnt from."""
    config = configured(state, **retrain)
    given = config.model_dump(mode="json")
    given["routes"]["colours"]["student"] = None
    given["engines"] = {}
    return Config.model_validate(given)


def test_a_quick_student_gets_a_verdict_with_its_saving_and_nothing_is_registered(
    tmp_path: Path, tiny_base: Path, says: Any
) -> None:
    config = without_student(tmp_path / "state", **EASY)
    log_exchanges(config, range(560))
    code, found = says(config, student=str(tiny_base), cost_per_request=0.01, who="eve")
    assert (code, found["gate"], found["mode"], found["coverage"]) == (0, "passed", "whole", 1.0), found["reasons"]
    scores = found["scores"]
    assert scores["base"]["agreement"] < 0.5 < scores["quantized"]["lower"] <= scores["quantized"]["agreement"]
    assert found["examples"]["train"] > 400
    saving = found["saving"]
    assert saving["requests_per_day"] == pytest.approx(86400.0), "one a second, as logged"
    # 3% stay with the teacher, and 5% of what the student serves is asked of it besides.
    assert saving["month"]["saved"] == pytest.approx(30 * 86400 * 0.01 * 0.97)
    serving = saving["month"]["student"]
    assert serving > 0.0, "its time on this machine"
    assert saving["month"]["net"] == pytest.approx(30 * 86400 * 0.01 * 0.97 * 0.95 - serving)
    assert saving["measured_over"] == pytest.approx(559.0)
    with closing(open_registry(config.registry)) as registry:
        assert registry.versions("colours") == []
    began, ended = entries(config.state)
    assert (began.event, began.cycle, began.reason, began.base) == ("began", ended.cycle, "evaluate", str(tiny_base))
    assert (ended.event, ended.outcome, ended.who) == ("ended", "passed", "eve")
    assert (ended.dataset or "").startswith("sha256:")
    assert not {"cycles", "artefacts", "run"} & {p.name for p in Path(config.state).iterdir()}
    assert list(folder_of(config, "colours").iterdir()) == [], "copies of the log's records are removed"


def test_of_a_ladder_the_rung_is_named_that_was_judged(
    tmp_path: Path, tiny_base: Path, says: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = without_student(tmp_path / "state", **EASY)
    log_exchanges(config, range(560))
    _, found = says(config, student=str(tiny_base), recipe="auto")
    assert (found["recipe"], found["gate"]) == ("linear", "passed"), found["reasons"]
    assert any(line.startswith("linear: agreement") for line in found["told"])
    assert evaluate(config, "colours", EvaluateOptions(student=str(tiny_base), recipe="auto")) == 0
    said = capsys.readouterr().out
    assert said.startswith("colours: linear; ")
    assert "the commonest answer" in said
    assert "linear: agreement" in said


def test_without_training_the_base_is_asked_and_a_hopeless_student_is_refused_with_the_reasons(
    tmp_path: Path, tiny_base: Path, says: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), **EASY)
    log_exchanges(config, range(300))
    code, found = says(config, student=str(tiny_base), untrained=True)
    assert (code, found["gate"], found["coverage"], set(found["scores"])) == (0, None, None, {"base"})
    assert found["saving"] == {
        "requests_per_day": pytest.approx(86400.0), "measured_over": None, "cost_per_request": None, "month": None,
        "lacking": "nothing was trained",
    }  # fmt: skip
    assert evaluate(config, "colours", EvaluateOptions(student=str(tiny_base), max_steps=1)) == 1
    said = capsys.readouterr().out
    assert "the gate would refuse it:" in said
    assert "surely" in said
    assert "saving: not known, no cost is known" in said


def test_what_was_imported_has_costs_but_no_traffic(tmp_path: Path, tiny_base: Path, says: Any) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), **EASY)
    records = []
    for number in range(200):
        made = interaction(number)
        paid = msgspec.structs.replace(made.answers[0], cost_usd=0.002)
        records.append(msgspec.structs.replace(made, source="stored", answers=(paid,)))
    log_exchanges(config, records)
    _, found = says(config, student=str(tiny_base), max_steps=1)
    assert found["saving"]["lacking"] == "the log holds no traffic: say --per-day"
    assert found["saving"]["cost_per_request"] == pytest.approx(0.002)
    _, found = says(config, student=str(tiny_base), max_steps=1, per_day=1000.0)
    assert found["saving"]["month"]["net"] == 0.0, "a student that is refused saves nothing"
    code, found = says(config, student=str(tiny_base), max_risk=0.5, per_day=1000.0)
    assert found["saving"]["month"]["student"] > 0.0
    assert (code, found["mode"]) == (0, "selective"), "good for a part, which a route that serves whole has no use for"
    assert not any("no price" in reason for reason in found["not_checked"]), "imported answers have costs"


def test_a_student_with_a_price_by_the_month_and_no_traffic_is_not_taken_for_free(
    tmp_path: Path, tiny_base: Path, says: Any
) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), gate={"student_usd_per_month": 9.0}, **EASY)
    records = [interaction(n) for n in range(560)]
    log_exchanges(config, [msgspec.structs.replace(r, source="stored") for r in records])
    _, found = says(config, student=str(tiny_base), per_day=1000.0, cost_per_request=0.002)
    assert found["coverage"] == 1.0
    assert found["saving"]["month"] is None
    assert "no price of the student is known" in found["saving"]["lacking"]


def test_the_data_are_those_of_the_routes_own_cycle_apart_from_its_suite(
    tmp_path: Path, tiny_base: Path, says: Any
) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), **EASY)
    log_exchanges(config, range(300))
    _, without = says(config, student=str(tiny_base), untrained=True)
    suite = suite_file(config.state, "colours")
    grow(suite, [example(number) for number in range(0, 300, 3)], 100)
    before = suite.read_bytes()
    _, found = says(config, student=str(tiny_base), untrained=True)
    own = options(config, "colours", config.routes["colours"], tmp_path / "work", silent)
    with open_interactions(config) as interactions:
        made = build(interactions, "colours", max_examples=10**6, options=own)
    assert found["examples"] == made.manifest.counts
    assert found["examples"]["train"] < without["examples"]["train"] - 50
    assert suite.read_bytes() == before


def test_an_erasure_ends_an_evaluation_that_trains_and_nothing_of_it_stays(tmp_path: Path, tiny_base: Path) -> None:
    config = configured(tmp_path / "state", base=str(tiny_base), learning_rate=5e-3, epochs=1000)
    log_exchanges(config, range(300))
    left: list[str] = ["not asked"]

    def erase() -> None:
        folder = folder_of(config, "colours")
        while not list(folder.rglob("dataset/dataset.json")):
            time.sleep(0.02)
        left[:] = forget(config, ["colours"], wait=120.0)

    erasing = threading.Thread(target=erase)
    erasing.start()
    with pytest.raises(StartError, match="`retort erase` has removed records that this evaluation worked on"):
        evaluate(config, "colours", EvaluateOptions(student=str(tiny_base)))
    erasing.join()
    assert left == []
    assert not folder_of(config, "colours").exists()
    ended = entries(config.state)[-1]
    assert (ended.event, ended.outcome) == ("ended", "cancelled")
    assert "retort erase" in (ended.error or "")


def test_an_evaluation_that_can_not_be_says_what_would_be_right(tmp_path: Path, tiny_base: Path) -> None:
    config = configured(tmp_path / "state")
    log_exchanges(config, range(3))

    def refused(route: str, **options: Any) -> str:
        with pytest.raises(StartError) as error:
            evaluate(config, route, EvaluateOptions(**options))
        return str(error.value)

    assert "no route 'nope'; the configuration has: colours" in refused("nope", student="x")
    assert "no base model 'x'" in refused("colours", student="x")
    began, ended = entries(config.state)
    assert (began.event, ended.event, ended.outcome) == ("began", "ended", "failed")
    assert "no base model 'x'" in (ended.error or "")
    assert list(folder_of(config, "colours").iterdir()) == [], "copies of the log's records are removed"
    assert "retort bootstrap" in refused("colours", student=str(tiny_base))
    assert "Input should be 'lora'" in refused("colours", student=str(tiny_base), recipe="magic")
    assert folder_of(config, "colours").exists()
    forget(config, ["colours"], wait=120.0)
    assert not folder_of(config, "colours").exists()
    with open_interactions(config) as interactions:
        assert len(list(interactions.of("colours"))) == 3
