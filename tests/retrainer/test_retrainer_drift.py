"""Drift: the population stability index against hand-computed values, its level, and a cycle that it starts."""

import json
import math
import random
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
from daemon_run import config, cycles_of, log_exchanges, running, stand_in, until
from retrainer_fakes import example, interaction, teacher

from collector import Interaction, open_interactions
from collector.record import Answer
from retrainer.counting import Count
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest, Options, build, write
from retrainer.drift import Drift, psi
from retrainer.state import Cycles, CycleState, Request
from router.config import Config
from router.decision import Arm
from router.events import Events
from router.policy_cycle import DriftPolicy
from router.policy_data import DataPolicy


def dataset(examples: list[Example]) -> Dataset:
    manifest = DatasetManifest(
        route="colours", digest="", first=0, end=400, read=400, counts={}, groups=0, dropped={}, upstreams={},
        scrubbers={},
    )  # fmt: skip
    return Dataset(train=examples[:300], validation=examples[300:350], test=examples[350:], manifest=manifest)


def finished(settings: Config, made: Dataset) -> CycleState:
    return CycleState(
        request=Request(cycle_id="before", route="colours"),
        policy=settings.routes["colours"].model_dump(mode="json"),
        started_at=1.0,
        finished_at=2.0,
        outcome="registered",
        phases={"dataset": msgspec.to_builtins(made.manifest)},
    )


def test_the_index_is_as_computed_by_hand_and_small_samples_have_a_higher_bound() -> None:
    found = psi({0: 60, 1: 40}, {0: 30, 1: 70}, bins=2, threshold=0.25)
    p, q = 30.5 / 101, 60.5 / 101
    assert found.psi == pytest.approx((p - q) * math.log(p / q) + (q - p) * math.log((1 - p) / (1 - q)))
    assert found.bound == 0.25, "chance: 0.02 times the chi-squared quantile 10.83"
    assert found.found
    few = psi({0: 6, 1: 4}, {0: 3, 1: 7}, bins=2, threshold=0.25)
    assert few.bound == pytest.approx(0.2 * 10.828, abs=0.001)
    assert not few.found


def test_without_a_shift_chance_stays_below_its_bound() -> None:
    draw = random.Random(0)
    alarms = 0
    for _ in range(500):
        expected, seen = (Counter(draw.choices(range(13), k=k)) for k in (100, 200))
        alarms += psi(expected, seen, bins=13, threshold=1e-9).found
    assert alarms <= 5, "0.1% each, by the chi-squared approximation"


def test_inputs_that_are_others_shift_the_population_and_more_of_the_same_do_not() -> None:
    made = dataset([example(n) for n in range(400)])
    watch = Drift(made, DriftPolicy(window=100), [e.messages for e in made.held_out])
    same = [watch.add(tiny_model.messages(n)) for n in range(1000, 1400)]
    shifts = [s for s in same if s is not None]
    assert [s is not None for s in same].count(True) == 4
    assert not any(s.found for s in shifts), shifts
    foreign = [watch.add([{"role": "user", "content": f"My invoice {n} is wrong, refund me"}]) for n in range(100)]
    assert foreign[-1] is not None
    assert foreign[-1].found
    cars = [watch.add(m) for n in range(3000) if "car" in (m := tiny_model.messages(n))[1]["content"].split()]
    only = [s for s in cars if s is not None]
    assert only[0].psi > 3 * max(s.psi for s in shifts), "one kind of input crowds the others out"


HARD = ["kernel", "driver", "compile", "segfault", "linker", "stack", "overflow", "pointer", "thread", "mutex"]
EASY = ["refund", "order", "parcel", "delivery", "invoice", "address", "return", "label", "courier", "payment"]


def traffic(count: int, *, hard: float, seed: int, first: int = 0) -> list[Interaction]:
    """Requests of two kinds. The student serves the easy ones, the teacher what it defers and a few to audit."""
    draw, found = random.Random(seed), []
    for n in range(first, first + count):
        words = HARD if (deferred := draw.random() < hard) else EASY
        asked = {"model": "m", "messages": [{"role": "user", "content": " ".join(draw.choices(words, k=12))}]}
        served = Answer(arm=Arm.STUDENT, version="v", status=200, message={"role": "assistant", "content": "x"})
        answers = (teacher("right"),) if deferred else (served, *([teacher("right")] if draw.random() < 0.05 else []))
        found.append(interaction(n, request=asked, arm=Arm.STUDENT, propensity=0.97, answered=0.08, answers=answers))
    return found


def test_what_a_student_has_served_is_no_shift_though_the_data_set_lacks_it(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", drift={"window": 500})
    log_exchanges(settings, traffic(3000, hard=0.4, seed=1))
    cycles, events = Cycles(settings.state), Events()
    told: list[dict[str, Any]] = []
    events.subscribe(lambda name, fields: told.append(fields) if name == "retrainer.drift" else None)
    with open_interactions(settings) as interactions:
        made = build(interactions, "colours", max_examples=5000)
        assert made.manifest.dropped["no_teacher_answer"].count > 1500
        cycles.save(finished(settings, made))
        write(made, cycles.folder("before") / "dataset")
        count = Count(interactions, cycles, "colours", settings.routes["colours"], events)
        log_exchanges(settings, traffic(2000, hard=0.4, seed=2, first=3000))
        count.count()
        assert len(told) == 4
        assert not count.drifted, told
        log_exchanges(settings, traffic(500, hard=0.8, seed=3, first=5000))
        count.count()
        assert count.drifted


@pytest.mark.parametrize(
    ("most", "replay", "corrected", "oldest"),
    [(5000, 0.1, 0, 1), (100, 0.0, 0, 301), (100, 0.2, 0, 321), (100, 0.2, 5, 326), (100, 0.0, 200, 1)],
)
def test_a_window_is_compared_with_what_the_data_set_was_made_of(
    tmp_path: Path, most: int, replay: float, corrected: int, oldest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path / "s", drift={"window": 100})
    log_exchanges(settings, range(400))
    cycles, asked = Cycles(settings.state), []
    with open_interactions(settings) as interactions:
        first = [record.id for _, record in islice(interactions.of("colours"), corrected)]
        right = tmp_path / "right.jsonl"
        right.write_text("".join(json.dumps({"id": name, "answer": "right"}) + "\n" for name in first))
        how = Options(policy=DataPolicy(replay=replay, corrections=str(right) if first else None))
        made = build(interactions, "colours", max_examples=most, options=how)
        cycles.save(finished(settings, made))
        write(made, cycles.folder("before") / "dataset")
        spread = interactions.spread
        monkeypatch.setattr(interactions, "spread", lambda route, **part: asked.append(part) or spread(route, **part))
        Count(interactions, cycles, "colours", settings.routes["colours"], Events()).count()
    (part,) = asked
    assert part["start"] == oldest
    assert part["end"] == made.manifest.end


DATASET = "state.phases['dataset'] = {'end': 10**6, 'first': 0, 'digest': 'sha256:0'}\n"
END = "state.outcome, state.finished_at = 'registered', time.time()\ncycles.save(state)\n"


async def test_a_shift_of_the_inputs_starts_a_cycle_but_imported_ones_do_not(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", every=0, drift={"window": 60})
    log_exchanges(settings, range(400))
    cycles = Cycles(settings.state)
    with open_interactions(settings) as interactions:
        made = build(interactions, "colours", max_examples=1000)
    cycles.save(finished(settings, made))
    write(made, cycles.folder("before") / "dataset")

    def others(numbers: range, source: str) -> list[Interaction]:
        asked = {n: [{"role": "user", "content": f"My invoice {n} is wrong, refund me"}] for n in numbers}
        return [interaction(n, request={"model": "m", "messages": asked[n]}, source=source) for n in numbers]

    async with running(settings, stand_in(DATASET + END)) as told:
        log_exchanges(settings, others(range(400, 470), "openai"))
        log_exchanges(settings, range(470, 535))
        with pytest.raises(AssertionError, match="nothing happened in time"):
            await until(lambda: len(cycles_of(settings)) > 1, 1.0)
        log_exchanges(settings, others(range(535, 600), ""))
        await until(lambda: [s.request.reason for s in cycles_of(settings)] == ["by_hand", "drift"])
    first, second = [fields for name, fields in told if name == "retrainer.drift"]
    assert first["psi"] <= first["bound"]
    assert second["psi"] > second["bound"] >= 0.25
    assert (second["route"], second["at"] > first["at"] > cycles_of(settings)[0].started_at) == ("colours", True)
