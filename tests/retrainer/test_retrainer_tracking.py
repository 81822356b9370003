"""MLflow is told of a cycle (a real store in SQLite, which a client reads back), or Weights & Biases (its own client's
file, which is parsed); and never of a record's text."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from daemon_run import FINISH, broken, config, cycles_of, log_exchanges, running, stand_in, until
from pydantic import ValidationError
from retrainer_fakes import example

from retrainer.ask import ask
from retrainer.data.dataset import DatasetManifest
from retrainer.evaluation.cost import Costs
from retrainer.evaluation.evaluate import Outcome, Report
from retrainer.evaluation.metrics import Metric
from retrainer.evaluation.slices import Frozen
from retrainer.phases_gate import Compared
from retrainer.state import CycleState, Request
from retrainer.tracking import track
from router.config import Config

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def settings(folder: Path, **tracking: Any) -> Config:
    return config(folder / "s", tracking={"mlflow": f"sqlite:///{folder}/mlflow.db", **tracking}, seed=7)


def ended(made: Config, outcome: str = "registered", **changes: Any) -> CycleState:
    """A cycle's state with all that a real one holds, texts of records included."""
    asked = example(1)
    report = Report(
        n=100, agreement=0.97, lower=0.93, upper=0.99, confidence=0.95, valid_json=1.0, leaked=0, unfinished=0,
        reasons={"same": 97}, tokens=900, seconds=2.0,
        outcomes=[Outcome(id="x1", text=asked.answer, finish_reason="stop", value=1.0, reason="same")],
    )  # fmt: skip
    manifest = DatasetManifest(
        route="colours", digest="sha256:abc", first=0, end=9, read=9, counts={"train": 80, "test": 10}, groups=9,
        dropped={}, upstreams={}, scrubbers={},
    )  # fmt: skip
    import msgspec

    score = Metric(value=0.75, lower=0.5, upper=1.0, n=9, groups=9)
    compared = Compared(
        costs=Costs(teacher=None, student=None),
        clusters=[],
        newest={"quantized": score},
        frozen=Frozen(scores={"previous": score}),
    )

    state = CycleState(
        request=Request(cycle_id="colours-1", route="colours", who="eve"),
        policy=made.routes["colours"].model_dump(mode="json"),
        started_at=1000.0,
        finished_at=1100.0,
        outcome=outcome,
        seconds={"train": 60.5},
        phases={
            "dataset": msgspec.to_builtins(manifest),
            "train": {"settings": {"learning_rate": 4e-4}, "losses": [2.0 / step for step in range(1, 1501)]},
            "evaluate_student": msgspec.to_builtins(report),
            "compare": msgspec.to_builtins(compared),
        },
    )
    return msgspec.structs.replace(state, **changes)


def runs(made: Config, experiment: str = "retort") -> list[Any]:
    tracking = made.routes["colours"].retrain.tracking
    assert tracking is not None
    client = mlflow.MlflowClient(tracking_uri=tracking.mlflow)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def test_a_cycle_is_one_run_with_its_settings_numbers_curve_and_artefact(tmp_path: Path) -> None:
    made = settings(tmp_path)
    track(made, ended(made))
    track(made, ended(made))
    (run,) = runs(made)
    assert (run.info.run_name, run.info.status, run.info.start_time) == ("colours-1", "FINISHED", 1_000_000)
    assert run.data.params["student.recipe"] == "lora"
    assert (run.data.params["retrain.seed"], run.data.params["train.learning_rate"]) == ("7", "0.0004")
    metrics = run.data.metrics
    assert metrics["evaluate_student.agreement"] == pytest.approx(0.97)
    assert (metrics["compare.newest.quantized"], metrics["compare.frozen.previous"]) == (0.75, 0.75)
    assert (metrics["seconds.train"], metrics["examples.train"]) == (60.5, 80.0)
    assert run.data.tags["retort.dataset"] == "sha256:abc"
    assert (run.data.tags["retort.who"], run.data.tags["retort.outcome"]) == ("eve", "registered")
    assert run.data.tags["retort.artefact"] == (tmp_path / "s/artefacts/colours-1").as_uri()
    tracking = made.routes["colours"].retrain.tracking
    assert tracking is not None
    curve = mlflow.MlflowClient(tracking_uri=tracking.mlflow).get_metric_history(run.info.run_id, "train.loss")
    assert [m.step for m in curve] == list(range(1, 1501))
    assert math.isclose(curve[-1].value, 2.0 / 1500)
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("mlflow.db*"))
    assert_no_text(stored)


def ladder(made: Config) -> CycleState:
    """The state of a cycle that trained two students."""
    trained = {"linear.train": {"losses": [3.0, 2.0]}, "encoder.train": {"losses": [1.5, 1.0, 0.5]}}
    return ended(made, phases=trained)


def test_a_ladder_has_a_curve_for_each_of_its_rungs(tmp_path: Path) -> None:
    made = settings(tmp_path)
    track(made, ladder(made))
    (run,) = runs(made)
    tracking = made.routes["colours"].retrain.tracking
    assert tracking is not None
    client = mlflow.MlflowClient(tracking_uri=tracking.mlflow)
    for rung, losses in (("linear", [3.0, 2.0]), ("encoder", [1.5, 1.0, 0.5])):
        curve = client.get_metric_history(run.info.run_id, f"{rung}.train.loss")
        assert [(m.step, m.value) for m in curve] == list(enumerate(losses, 1))


def failed(made: Config, **changes: Any) -> CycleState:
    return ended(made, "failed", phases={}, seconds={}, error="the loss is no number", **changes)


def assert_no_text(stored: bytes) -> None:
    for text in (tiny_model.SYSTEM, tiny_model.question(1), tiny_model.answer(tiny_model.question(1))):
        assert text.encode() not in stored
        assert json.dumps(text).encode() not in stored


def test_a_failed_cycle_says_why_and_a_server_that_is_away_fails_no_cycle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(tmp_path, experiment="mine")
    track(made, failed(made))
    (run,) = runs(made, "mine")
    assert (run.info.status, run.data.tags["retort.error"]) == ("FAILED", "the loss is no number")
    assert "retort.artefact" not in run.data.tags
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = config(tmp_path / "s", tracking={"mlflow": "http://127.0.0.1:1"})
    track(away, ended(away))
    assert "retrainer.not_tracked" in caplog.text
    track(config(tmp_path / "s"), ended(config(tmp_path / "s")))  # nobody to tell


@pytest.mark.parametrize(("end", "outcome"), [(FINISH, "registered"), (broken("killed", 9), "failed")])
async def test_the_daemon_tells_of_a_cycle_however_it_ended(
    tmp_path: Path, end: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrainer.daemon.MOST_ATTEMPTS", 2)
    made = settings(tmp_path)
    assert runs(made) == []  # its tables are made
    log_exchanges(made, range(2))
    ask(made.state, Request(cycle_id="mine", route="colours"))
    async with running(made, stand_in(end), retry=(0.01, 0.02)):
        await until(lambda: [state.outcome for state in cycles_of(made)] == [outcome])
        await until(lambda: [run.data.tags.get("retort.outcome") for run in runs(made)] == [outcome], 60)


def test_a_tracking_uri_holds_no_password(tmp_path: Path) -> None:
    for uri, says in (("http://me:secret@host", "MLFLOW_TRACKING_PASSWORD"), ("ftp://host", "write http")):
        with pytest.raises(ValidationError, match=says):
            config(tmp_path / "s", tracking={"mlflow": uri})


def test_one_tracker_is_named(tmp_path: Path) -> None:
    mlflow_uri = "http://127.0.0.1:5000"
    for tracking, says in (
        ({}, "name one of mlflow and wandb"),
        ({"mlflow": mlflow_uri, "wandb": "p"}, "name one of mlflow and wandb"),
        ({"wandb": "p", "experiment": "e"}, "wandb: PROJECT or ENTITY/PROJECT"),
        ({"wandb": "a/b/c"}, "should match pattern"),
    ):
        with pytest.raises(ValidationError, match=says):
            config(tmp_path / "s", tracking=tracking)


def records(file: Path) -> Iterator[Any]:
    """Those of a run's file: protocol buffers in LevelDB's log format, behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # no chunk begins there
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def run_of(
    folder: Path, keys: tuple[str, ...] = ("train",)
) -> tuple[Any, dict[str, Any], dict[tuple[str, ...], Any], list[tuple[float, ...]], int]:
    """The run, its config, its summary, the curves (by their names), and how it ended, as the client has written them
    down."""
    (file,) = folder.rglob("*.wandb")
    found = [(record, record.WhichOneof("record_type")) for record in records(file)]
    (run,) = [record.run for record, kind in found if kind == "run"]
    given = {update.key: json.loads(update.value_json) for update in run.config.update}
    updates = [update for record, kind in found if kind == "summary" for update in record.summary.update]
    summary = {tuple(u.nested_key) or (u.key,): json.loads(u.value_json) for u in updates}
    curve: list[tuple[float, ...]] = []
    for record, kind in found:
        if kind == "history":
            items = {tuple(i.nested_key) or (i.key,): json.loads(i.value_json) for i in record.history.item}
            curve.append((record.history.step.num, *(items[key, "loss"] for key in keys if (key, "loss") in items)))
    (code,) = [record.exit.exit_code for record, kind in found if kind == "exit"]
    return run, given, summary, curve, code


def test_weights_and_biases_get_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    made = config(tmp_path / "s", tracking={"wandb": "us/retort"}, seed=7)
    track(made, ended(made))
    folder = tmp_path / "s/cycles/colours-1"
    run, given, summary, curve, code = run_of(folder)
    assert (run.entity, run.project, run.run_id, run.run_group) == ("us", "retort", "colours-1", "colours")
    assert (given["student"]["recipe"], given["retrain"]["seed"]) == ("lora", 7)
    assert given["train"] == {"learning_rate": 4e-4}
    facts = given["retort"]
    assert (facts["who"], facts["outcome"], facts["dataset"]) == ("eve", "registered", "sha256:abc")
    assert facts["artefact"] == (tmp_path / "s/artefacts/colours-1").as_uri()
    assert (facts["begun"], facts["ended"]) == ("1970-01-01T00:16:40+00:00", "1970-01-01T00:18:20+00:00")
    assert (summary["seconds",], summary["examples",]) == ({"train": 60.5}, {"train": 80.0, "test": 10.0})
    assert summary["evaluate_student",]["agreement"] == pytest.approx(0.97)
    assert curve == [(step, pytest.approx(2.0 / step)) for step in range(1, 1501)]
    assert code == 0
    stored = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert_no_text(stored)
    assert str(Path.cwd()).encode() not in stored.replace(str(tmp_path).encode(), b""), "nor of the machine"


def test_weights_and_biases_get_the_curve_of_each_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    made = config(tmp_path / "s", tracking={"wandb": "us/retort"})
    track(made, ladder(made))
    *_, curves, code = run_of(tmp_path / "s/cycles/colours-1", ("linear.train", "encoder.train"))
    assert (curves, code) == ([(1, 3.0, 1.5), (2, 2.0, 1.0), (3, 0.5)], 0)


def test_weights_and_biases_see_a_failure_and_their_absence_fails_no_cycle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    made = config(tmp_path / "s", tracking={"wandb": "retort"})
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("retrainer.tracking_wandb.INIT_SECONDS", 1.0)
    track(made, failed(made))
    assert "retrainer.not_tracked" in caplog.text
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(made, failed(made, request=Request(cycle_id="c", route="colours")))
    _, given, _, _, code = run_of(tmp_path / "s/cycles/c")
    assert (given["retort"]["error"], code) == ("the loss is no number", 1)
    assert "artefact" not in given["retort"]
