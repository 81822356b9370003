"""Which held-out records may choose anything, and which judge: never the same."""

from pathlib import Path

import msgspec
import pytest
from retrainer_fakes import example

from exporters.models.closed import text_of
from exporters.models.frame import Frame
from retort.sweep.study import Sweep
from retort.training_bar import TrainingBar
from retrainer.data.curate import Example, Side
from retrainer.data.dataset import Dataset, DatasetManifest, digest, write
from retrainer.phases import Phases
from retrainer.progress import silent
from retrainer.recipes import Job
from retrainer.recipes.closed import Task
from retrainer.state import Request
from router.config import Config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A route with a data set of pairs of near-duplicates."""
    made = [msgspec.structs.replace(example(n), group=f"g{n // 2}") for n in range(240)]
    parts = {Side.TRAIN: made[:120], Side.VALIDATION: made[120:200], Side.TEST: made[200:]}
    manifest = DatasetManifest(
        route="colours", digest=digest(parts), first=0, end=240, read=240, counts={}, groups=120, dropped={},
        upstreams={}, scrubbers={},
    )  # fmt: skip
    write(Dataset(**{side.value: part for side, part in parts.items()}, manifest=manifest), tmp_path / "dataset")
    route = {"teachers": ["up/m"], "student": {"recipe": "linear", "base": "none"}}
    upstreams = {"up": {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True}}
    return Config.model_validate(
        {"state": str(tmp_path), "upstreams": upstreams, "engines": {"local": {}}, "routes": {"colours": route}}
    )


def test_no_record_that_chose_weights_temperatures_shares_or_settings_judges(config: Config, tmp_path: Path) -> None:
    job = Job(config.state, config.routes["colours"], tmp_path, silent)
    judged = Phases(config, Request(cycle_id="c", route="colours"), job)._judged
    known = {text_of(e.messages, 1, Frame()): e for e in job.data.held_out}
    with TrainingBar() as bar:
        report, _ = Sweep(config, "colours", seed=0)._measure(config.routes["colours"], "present", bar)
    chose = {
        "which weights are kept": job.watched,
        "temperatures and shares": [known[text] for text, *_ in Task(job).checked],
        "settings": [e for e in job.data.held_out if e.id in {o.id for o in report.outcomes}],
    }
    for what, examples in chose.items():
        assert len(examples) > 20, what
        assert not ids(examples) & ids(judged), what
        assert not {e.group for e in examples} & {e.group for e in judged}, f"{what}: near-duplicates"
    assert ids(job.data.test) < ids(judged), "and half of the validation part"
    assert ids(judged) | ids(job.choosing) == ids(job.data.held_out)


def test_a_growing_log_makes_no_record_change_sides(config: Config, tmp_path: Path) -> None:
    """A sweep's settings are used by later cycles, whose data sets hold the same records and more."""
    job = Job(config.state, config.routes["colours"], tmp_path, silent)
    data = job.data
    less = Job(config.state, config.routes["colours"], tmp_path, silent)
    less.data = msgspec.structs.replace(data, validation=data.validation[::3])
    assert ids(less.choosing) == ids(job.choosing) & ids(data.validation[::3])
    assert [e.id for e in less.choosing] == [e.id for e in job.choosing if e.id in ids(less.choosing)]


def ids(examples: list[Example] | tuple[Example, ...]) -> set[str]:
    return {e.id for e in examples}
