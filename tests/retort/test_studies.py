"""Studies at work, each in a process of its own: one at a time, and an erasure ends them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retort.erase import erase
from retort.errors import StartError
from retort.studies import at_work, folder_of, forget, study_config
from retrainer.data.configured import options
from retrainer.data.curate import Example
from retrainer.data.suite import grow, read_suite, suite_file
from retrainer.progress import silent
from retrainer.state import BUILDING
from router import Config, parse

CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", api_key: k, distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes:
  again: {{teachers: [o/m], capture: {{rate: 0}}}}
  r: {{teachers: [o/m], student: {{}}, retrain: {{data: {{consistency: {{route: again}}}}}}}}
"""
WORKER = """
import sys, time
from pathlib import Path
from retort.erase import erase
from retort.errors import StartError
from retort.studies import at_work, study_config
from retort.training_bar import TrainingBar
from router import parse

config = parse(sys.argv[1], {})
study = study_config(config, "r", name="sweep", changes={})
try:
    with at_work(config, study, "r") as unwanted:
        (Path(study.state) / "texts").write_text("jane")
        print("at work", flush=True)
        sys.stdin.readline()  # a long step
        bar = TrainingBar(unwanted)
        while True:
            bar("train", 1, 2, None)
            time.sleep(0.01)
except StartError as error:
    print(error, flush=True)
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    return CONFIG.format(state=tmp_path / "state")


@pytest.fixture
def config(text: str) -> Config:
    return parse(text, {})


def test_a_study_may_need_more_of_an_engine_than_it_holds(text: str) -> None:
    tight = text.replace("{local: {}}", "{local: {max_loaded: 1}}") + "  new: {teachers: [o/m]}\n"
    study = study_config(parse(tight, {}), "new", name="evaluate", changes={"student": {}})
    assert study.routes["new"].student is not None


@pytest.fixture
def worker(text: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


def said(worker: subprocess.Popen[str]) -> str:
    """After its long step, to its end."""
    out, _ = worker.communicate("\n", timeout=30)
    return out


def example(name: str, subject: str = "") -> Example:
    return Example(
        id=name,
        offset=1,
        at=1.0,
        cluster="c",
        subject=subject,
        messages=[{"role": "user", "content": name}],
        answer="a",
    )


def test_a_sweep_in_another_process_is_in_the_way_until_it_is_killed(
    config: Config, worker: subprocess.Popen[str]
) -> None:
    study = study_config(config, "r", name="sweep", changes={"retrain": {"max_examples": 50}})
    with pytest.raises(StartError, match="another sweep of route 'r' is at work"), at_work(config, study, "r"):
        pass
    other = study_config(config, "r", name="evaluate", changes={})
    with at_work(config, other, "r"):
        pass  # an evaluation beside it is in nobody's way
    worker.kill()
    worker.wait()
    with at_work(config, study, "r"):
        assert (folder_of(config, "r")).exists()


def test_an_erasure_waits_for_a_study_that_ends_at_its_next_step(
    config: Config, worker: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert forget(config, ["r"], wait=0.0) == ["the sweep of route 'r'"]
    assert "waiting" not in capsys.readouterr().err
    assert list(folder_of(config, "r").rglob("texts")), "it is never pulled away under its feet"
    assert "`retort erase` has removed records that this sweep worked on" in said(worker)
    assert list(folder_of(config, "r").glob("*")) == []
    assert forget(config, ["r"], wait=0.0) == []
    assert not folder_of(config, "r").exists()


def test_a_study_that_was_to_go_and_was_killed_is_begun_anew(config: Config, worker: subprocess.Popen[str]) -> None:
    assert forget(config, ["r"], wait=0.0) == ["the sweep of route 'r'"]
    worker.kill()
    worker.wait()
    assert list(folder_of(config, "r").rglob("texts"))
    study = study_config(config, "r", name="sweep", changes={})
    with at_work(config, study, "r") as unwanted:
        assert not unwanted()
        assert not list(folder_of(config, "r").rglob("texts"))


def test_a_training_that_is_cut_off_is_a_study_of_its_own(config: Config) -> None:
    short, whole = (study_config(config, "r", name="evaluate", changes={}, steps=steps) for steps in (10, None))
    assert short.state != whole.state, "or a repeated evaluation would go on with it"


def test_a_study_is_kept_apart_from_the_routes_suite_and_fills_up_a_copy_of_it(config: Config) -> None:
    own = suite_file(config.state, "r")
    grow(own, [example("old")], 5)
    study = study_config(config, "r", name="evaluate", changes={})
    copy = suite_file(study.state, "r")
    with at_work(config, study, "r"):
        grow(copy, [example("new")], 5)
    assert [e.id for e in read_suite(copy)] == ["old", "new"]
    assert [e.id for e in read_suite(own)] == ["old"]
    with at_work(config, study, "r"):  # no data set was made of the log yet: it is the suite as it is now
        assert [e.id for e in read_suite(copy)] == ["old"]


def test_a_study_uses_and_keeps_the_teachers_second_answers_of_the_route(config: Config) -> None:
    study = study_config(config, "r", name="evaluate", changes={})
    with at_work(config, study, "r"):
        second = options(study, "r", study.routes["r"], Path(study.state) / BUILDING, silent).second
        assert second is not None
        second.kept.write_bytes(b"paid for")
    assert forget(config, ["r"], wait=0.0) == []
    assert [path.read_bytes() for path in (Path(config.state) / "consistency").iterdir()] == [b"paid for"]


def test_erasing_removes_studies_that_read_the_log_or_have_her_in_their_suite_and_tells_of_one_at_work(
    config: Config, worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def erased() -> tuple[int, str]:
        code = erase(config, names=[], hashed=["jane"], as_json=True)
        told = capsys.readouterr()
        assert json.loads(told.out)[0]["subject"] == "jane"
        return code, told.err

    folder = folder_of(config, "r")
    assert erased() == (0, "")
    assert list(folder.rglob("texts")), "nothing of hers is in it"
    (study,) = folder.iterdir()
    (study / BUILDING).mkdir()
    monkeypatch.setattr("retort.erase.END_SECONDS", 0.5)
    code, told = erased()
    assert code == 1
    assert "waiting for the end of the sweep of route 'r'\n" in told
    assert "the sweep of route 'r' may hold copies of what was erased, and has not ended yet" in told
    assert "`retort erase` has removed" in said(worker)
    assert erased() == (0, "")

    of_her = study_config(config, "r", name="evaluate", changes={})
    with at_work(config, of_her, "r"):
        grow(suite_file(of_her.state, "r"), [example("a", "jane")], 5)
    assert erased() == (0, "")
    assert not folder.exists()


def test_a_study_fetches_nothing_that_the_routes_cycles_have_fetched(config: Config) -> None:
    away = config.model_copy(update={"artefacts": "s3://nowhere/x"})
    study = study_config(away, "r", name="evaluate", changes={})
    with at_work(away, study, "r"):
        kept = Path(config.state) / "artefacts" / "kept"
        kept.mkdir()
        assert (Path(study.state) / "artefacts" / "kept").samefile(kept)
    assert kept.exists()
