"""Drift: the population stability index against hand-computed values, its level, and a cycle that it starts."""

import math
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import tiny_model
from daemon_run import config, cycles_of, log_exchanges, running, stand_in, until
from retrainer_fakes import example, interaction

from collector import Interaction, open_interactions
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest, build, write
from retrainer.drift import Drift, psi
from retrainer.state import Cycles, CycleState, Request
from router.policy_cycle import DriftPolicy


def dataset(examples: list[Example]) -> Dataset:
    manifest = DatasetManifest(
        route="colours", digest="", first=0, end=400, read=400, counts={}, groups=0, dropped={}, upstreams={},
        scrubbers={},
    )  # fmt: skip
    return Dataset(train=examples[:300], validation=examples[300:350], test=examples[350:], manifest=manifest)


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
    watch = Drift(dataset([example(n) for n in range(400)]), DriftPolicy(window=100))
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


DATASET = "state.phases['dataset'] = {'end': 10**6, 'first': 0, 'digest': 'sha256:0'}\n"
END = "state.outcome, state.finished_at = 'registered', time.time()\ncycles.save(state)\n"


async def test_a_shift_of_the_inputs_starts_a_cycle_but_imported_ones_do_not(tmp_path: Path) -> None:
    settings = config(tmp_path / "s", every=0, drift={"window": 60})
    log_exchanges(settings, range(400))
    cycles = Cycles(settings.state)
    with open_interactions(settings) as interactions:
        made = build(interactions, "colours", max_examples=1000)
    cycles.save(
        CycleState(
            request=Request(cycle_id="before", route="colours"),
            policy=settings.routes["colours"].model_dump(mode="json"),
            started_at=1.0,
            finished_at=2.0,
            outcome="registered",
            phases={"dataset": msgspec.to_builtins(made.manifest)},
        )
    )
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
