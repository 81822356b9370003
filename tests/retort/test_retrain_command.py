"""`retort retrain` ends with its request's cycle, or says that there will be none."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retort.errors import StartError
from retort.retrain import retrain
from retrainer import Cycles, CycleState, Request, Standing, ask, asked
from retrainer.ask import answered
from retrainer.begin import begin
from retrainer.lease import Leases, at_work
from router import Config, parse

CONFIG = """
state: {state}
upstreams: {{o: {{base_url: "http://127.0.0.1:1/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{r: {{teachers: [o/m], student: {{}}}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse(CONFIG.format(state=tmp_path / "state"), {})


@contextmanager
def retrainer(config: Config, takes: Callable[[Request], None]) -> Iterator[None]:
    """One that does this with the first request that it finds."""

    def serve() -> None:
        while (request := asked(config.state, "r")) is None:
            time.sleep(0.01)
        takes(request)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


def asked_for(config: Config) -> int:
    return retrain(config, "r", max_steps=None, why=None, who="eve", held_out=None)


def test_a_request_that_is_thrown_away_ends_the_command(config: Config) -> None:
    with (
        retrainer(config, lambda request: answered(config.state, "r")),
        pytest.raises(StartError, match=r"refused the cycle r-.*retrainer\.bad_request"),
    ):
        asked_for(config)


def test_a_request_that_another_replaces_ends_the_command_and_names_the_other(config: Config) -> None:
    other = Request(cycle_id="other", route="r", who="joe")
    with (
        retrainer(config, lambda request: ask(config.state, other)),
        pytest.raises(StartError, match="joe asked for another, other, before it began"),
    ):
        asked_for(config)
    assert asked(config.state, "r") == other


def test_a_request_that_is_taken_is_waited_for_to_its_end(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    def take(request: Request) -> None:
        cycles = Cycles(config.state)
        state = begin(config, cycles, request)
        answered(config.state, "r")
        ask(config.state, Request(cycle_id="next", route="r"))
        time.sleep(0.5)  # the command sees it at work
        state.outcome = "registered"
        cycles.save(state)

    with retrainer(config, take):
        assert asked_for(config) == 0
    assert ": registered" in capsys.readouterr().out


def finished(config: Config, request: Request, *phases: str) -> CycleState:
    """A cycle that goes through these phases, as the command may watch."""
    cycles = Cycles(config.state)
    state = begin(config, cycles, request)
    answered(config.state, "r")
    for phase in phases:
        cycles.report(request.cycle_id, Standing(phase=phase, done=1, total=3, seconds_left=4.0))
        time.sleep(1.0)
    state.outcome = "registered"
    cycles.save(state)
    return state


def test_without_a_retrainer_the_request_waits_and_that_is_said_at_once(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with retrainer(config, lambda request: finished(config, request)):
        assert asked_for(config) == 0
    said = capsys.readouterr().out
    assert f"waits until a retrainer runs on {config.state}; there is none now (retort up)" in said
    leases = Leases(config)
    try:
        with retrainer(config, lambda request: finished(config, request)):
            assert asked_for(config) == 0
    finally:
        leases.close()
    assert "waits" not in capsys.readouterr().out


def test_a_retrainer_in_another_process_is_seen_until_it_is_killed(config: Config) -> None:
    code = "import sys, time\nfrom retrainer.lease import _Identity\nfrom pathlib import Path\n"
    code += "held = _Identity(Path(sys.argv[1]) / 'retrainer.id')\nprint('up', flush=True)\ntime.sleep(60)\n"
    assert not at_work(config.state)
    with subprocess.Popen([sys.executable, "-c", code, config.state], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert at_work(config.state)
        process.kill()
    assert not at_work(config.state)


def test_a_pipe_gets_a_line_for_each_phase(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with retrainer(config, lambda request: finished(config, request, "dataset", "train")):
        assert asked_for(config) == 0
    lines = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines() if "/3" in line]
    assert lines == ["dataset 1/3, 4 s left", "train 1/3, 4 s left"]
