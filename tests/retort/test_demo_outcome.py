"""What the demo says of a run: from a real log, registry and cycle to the figures, the table, the picture, the bars."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from demo_run import BAD, STUDENT, TWIN, Run, request, whole
from rich.console import Console

from retort.demo import settings
from retort.demo.bars import Bars
from retort.demo.outcome import as_json, print_table, unfinished, write_json
from retort.demo.picture import draw
from retort.demo.settings import PRICE, SWAPPED
from retort.settings import load
from retrainer import Standing
from router import EventKind, Stage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    made = whole(tmp_path_factory.mktemp("demo"))
    yield made
    made.close()


def test_the_figures_of_a_whole_run(run: Run, tmp_path: Path) -> None:
    outcome = run.outcome()
    write_json(as_json(outcome), tmp_path / "new" / "demo.json")
    found = msgspec.json.decode((tmp_path / "new" / "demo.json").read_bytes())
    assert found["promoted"] is True
    assert found["rejected_in_shadow"] == {"rejected": True, "users_served": 0}
    backs = found["rolled_back"]
    assert (backs["wrong"], backs["failing"]) == (True, True)
    assert backs["causes"][0] in ("quality_alarm", "quality_drop_alarm")
    assert backs["causes"][1] == "hard_stop"
    assert found["hot_swap"] == {"answers": {TWIN: 60, STUDENT: 60}, "by_both": True}
    assert found["failed_requests"] == 0
    assert found["wrong_answers_served_before_rollback"] == len(run.wrong) > 0
    assert found["agreement"] == {"base": 0.0, "student": 0.97, "quantized": 0.965, "n": 1000}
    assert found["valid_json"] == 0.999
    assert found["phases"] == {"start": 2.0, "retrain: train": 8.5}
    assert found["seconds"] == 11.0  # by the wall clock, not the phases' sum
    assert found["requests"] == len(run.sent)
    assert found["complete"] is True
    causes = [d["cause"] for d in found["decisions"]]
    assert causes[-2:] == ["operator", "hard_stop"]


def test_what_each_arm_cost_and_took_before_any_fault(run: Run) -> None:
    served = as_json(run.outcome())["served"]
    assert served["teacher"]["requests"] == sum(s.served_by == "teacher" for s in run.before)
    assert served["student"]["requests"] == sum(s.served_by == STUDENT for s in run.before)
    assert served["student"]["right"] == 1.0  # the spoilt answers came later
    assert (served["teacher"]["p50_ms"], served["student"]["p95_ms"]) == (600.0, 50.0)
    assert served["teacher"]["cost_per_1000"] == pytest.approx((100 * PRICE["input"] + 10 * PRICE["output"]) / 1000)
    (price,) = run.config.upstreams["openai"].prices.values()
    assert {"input": price.input, "output": price.output} == PRICE


def test_a_failed_request_a_wrong_answer_and_a_user_of_the_bad_candidate_are_counted(run: Run) -> None:
    before = as_json(run.outcome())
    failed = as_json(run.outcome(request(None, right=False)))
    assert (failed["failed_requests"], failed["failures"], failed["complete"]) == (1, ["503"], False)
    met = as_json(run.outcome(request(BAD, right=False), request(BAD)))
    assert met["rejected_in_shadow"] == {"rejected": True, "users_served": 2}
    assert met["complete"] is False
    key = "wrong_answers_served_before_rollback"
    more = (request(STUDENT, right=False), request(STUDENT), request("teacher", right=False))
    assert as_json(run.outcome(*more))[key] == before[key] + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"promoted": False},
        {"rejected_in_shadow": False},
        {"bad_served": 1},
        {"swap_answers": {STUDENT: 2 * SWAPPED}},
        {"swap_answers": {STUDENT: SWAPPED, TWIN: SWAPPED - 1}},
        {"rolled_back_wrong": "hard_stop"},
        {"rolled_back_wrong": None},
        {"rolled_back_failing": "quality_alarm"},
        {"rolled_back_failing": None},
        {"failed": ["503"]},
        {"replayed": False},
        {"stopped_cleanly": False},
    ],
)
def test_a_run_that_lacks_anything_is_not_complete(run: Run, changes: dict[str, Any]) -> None:
    assert run.outcome().complete
    assert not run.outcome(**changes).complete


def test_a_promotion_by_hand_is_none_by_evidence_and_what_did_not_happen_is_not_told(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.learn()
    run.arrive(STUDENT)
    run.some(5, of=STUDENT)
    run.event(EventKind.OPERATOR, STUDENT, action="promote", who="demo", why="impatience")
    assert run.watch.stage(STUDENT) is Stage.LIVE
    run.some(5, of=STUDENT, by=STUDENT)
    found = as_json(run.outcome())
    run.close()
    assert (found["promoted"], found["complete"]) == (False, False)
    assert found["rejected_in_shadow"]["rejected"] is False
    assert found["rolled_back"] == {"wrong": False, "failing": False, "causes": [None, None]}
    assert found["wrong_answers_served_before_rollback"] == 0


def test_a_run_that_came_to_no_end_says_how_far_it_came() -> None:
    found = unfinished("waited 120 s", [request("teacher"), request(None)], {"start": 2.0})
    assert (found["promoted"], found["complete"], found["error"]) == (False, False, "waited 120 s")
    assert (found["requests"], found["failed_requests"], found["phases"]) == (2, 1, {"start": 2.0})


def test_the_table_says_what_a_person_wants_to_know(run: Run) -> None:
    said = io.StringIO()
    print_table(Console(file=said, width=120), run.outcome(bad_served=3))
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert "quantized 96.5% (95.5% - 97.5%) 99.9% 100" in lines
    assert "retrain: train 8.5" in lines
    assert "by the wall clock 11.0" in lines
    assert "rejected_in_shadow: {'rejected': True, 'users_served': 3}" in lines
    assert "complete: False" in lines


def test_the_picture_shows_evidence_decisions_and_who_answered(run: Run, tmp_path: Path) -> None:
    import matplotlib.image
    import numpy as np

    shown = []
    for name, more in (("one", ()), ("two", [request(BAD)] * 300)):
        path = tmp_path / "new" / f"{name}.png"
        draw(run.outcome(*more), path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        shown.append(matplotlib.image.imread(path)[..., :3])
    height, width, _ = shown[0].shape
    assert (height, width) > (1000, 1000)
    for third in np.array_split(shown[0], 3):  # each panel: lines in several colours on white
        colours, counts = np.unique((third.reshape(-1, 3) * 255).astype(int), axis=0, return_counts=True)
        coloured = (np.ptp(colours, axis=1) > 60) & (counts > 30)
        assert coloured.sum() >= 2
        assert (third < 1).any(axis=-1).mean() > 0.01
    assert (shown[0] != shown[1]).mean() > 0.001


async def test_watch_reads_a_running_test_against_its_boundary(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.watch.stage(STUDENT) is None
    assert run.watch.cycle() is None
    run.learn()
    run.arrive(STUDENT)
    run.some(40, of=STUDENT)
    (latest,) = run.watch.moments
    assert (latest.challenger, latest.live, latest.requests) == (STUDENT, None, 40)
    value, boundary = latest.tests[f"{STUDENT} quality"]
    assert 0 < value < boundary
    assert run.watch.stage(STUDENT) is Stage.SHADOW
    assert not run.watch.ready(STUDENT)
    run.watch.registry.publish(STUDENT, engine="local", url="http://127.0.0.1:1/v1")
    assert run.watch.ready(STUDENT)
    cycle = run.watch.cycle()
    assert cycle is not None
    assert cycle.request.cycle_id == STUDENT
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run.watch.record(), 0.1)
    assert len(run.watch.moments) == 2
    run.close()


async def test_where_nobody_watches_the_bars_are_plain_lines_said_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.arrive(STUDENT)
    run.some(40, of=STUDENT)
    said = io.StringIO()
    with Bars(Console(file=said, width=120)) as bars:
        bars.follow("captured", 1500, lambda: len(run.sent))
        bars.cycle(None)
        bars.cycle(Standing(phase="train", done=3, total=10, seconds_left=7.0))
        bars.cycle(Standing(phase="export", done=0, total=1, seconds_left=None))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bars.evidence(run.watch, STUDENT), 0.1)
    run.close()
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert "\x1b" not in said.getvalue()
    for start, end in (("captured", "40/1500"), ("train", "3/10, 7 s left"), ("export", "0/1"), ("test quality", "")):
        (line,) = [line for line in lines if line.startswith(start)]
        assert end in line
    assert any(line.startswith("test quality") and " of " in line for line in lines)
    assert any(line.startswith("traffic share") and "0%" in line for line in lines)


def test_the_demo_is_told_on_vllm_by_four_bits_in_training_and_in_service(tmp_path: Path) -> None:
    places = settings.prepare(tmp_path, engine="vllm")
    config = load(str(places.config))
    policy = config.routes[settings.ROUTE]
    assert config.engines["local"].runtime == "vllm"
    assert (policy.student.recipe, policy.retrain.quantization) == ("qlora", "awq")
    own = {"student", "latency", "retrain"}
    rest = policy.model_dump(exclude=own)
    assert rest == load(str(settings.prepare(tmp_path).config)).routes[settings.ROUTE].model_dump(exclude=own)
