"""`retort retrain` ends with its request's cycle, or says that there will be none."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retort.errors import StartError
from retort.retrain import retrain
from retrainer import Cycles, Request, ask, asked
from retrainer.ask import answered
from retrainer.cycle import begin
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
