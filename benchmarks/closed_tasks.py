"""Real tasks with few answers as cycles see them, and students of them made by the product's own recipes.

Banking77 (PolyAI, CC BY 4.0), CLINC150 with out-of-scope queries (CC BY 3.0), and the section of Debian's packages, as
gzipped JSON lines. A teacher answers with their labels, as JSON.
"""

import gzip
import json
import random
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from recipes_tasks import SECTION

from exporters.models.confidence import Confidence
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, DatasetManifest
from retrainer.evaluation.assess import Assessment, assess
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.generator import Generator
from retrainer.recipes import RECIPES, Job
from router import RoutePolicy, score
from router.policy_quality import SelectivePolicy

Floats = NDArray[np.float64]
OUT = Path(__file__).resolve().parents[1] / "out" / "closed"
SECTION_TEST, SECTION_VALIDATION = 2000, 2000
TIMED = 200  # test records whose answers are timed


class Task(NamedTuple):
    """Three parts that share no record; thresholds are chosen on the second, and figures are of the third."""

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]


class Answers(NamedTuple):
    """A part's: how sure the served student is of each, and whether it is the teacher's."""

    report: Report
    sure: Floats
    right: Floats


class Made(NamedTuple):
    """`seconds`: of training. `ms`: of one answer, each by itself, on one core."""

    artefact: Path
    validation: Answers
    test: Answers
    assessed: Assessment
    seconds: float
    ms: float


def intents(name: str, folder: Path) -> Task:
    """Banking77's own test queries, with a tenth of its training queries as validation; CLINC150 as it is split, its
    out-of-scope queries with the teacher's answer `oos`."""
    rows = _rows(folder / f"{name}.jsonl.gz")
    examples = [
        (row["split"], _example(n, "Which intent? JSON.", row["text"], {"intent": row["intent"]}))
        for n, row in enumerate(rows)
    ]
    random.Random(0).shuffle(examples)
    parts = {
        part: [e for split, e in examples if split.removeprefix("oos_") == part] for part in ("train", "val", "test")
    }
    spare = parts["val"] or parts["train"][: len(parts["train"]) // 10]
    return Task(name, parts["train"][0 if parts["val"] else len(spare) :], spare, parts["test"])


def section(folder: Path, learnt: int) -> Task:
    """`learnt` packages to learn from; the others are the same for each number."""
    rows = list({row["package"]: row for row in _rows(folder / "packages.jsonl.gz")}.values())
    random.Random(7).shuffle(rows)
    examples = [
        _example(n, SECTION, f"{row['package']}: {row['synopsis']}", {"section": row["section"]})
        for n, row in enumerate(rows)
    ]
    first = SECTION_TEST + SECTION_VALIDATION
    return Task(
        f"section-{learnt}", examples[first : first + learnt], examples[SECTION_TEST:first], examples[:SECTION_TEST]
    )


def make(task: Task, recipe: str, *, max_risk: float) -> Made:
    """Train, export, assess on the validation part, and answer the test part; a trained student is kept."""
    folder = OUT / f"{task.name}-{recipe}"
    policy = RoutePolicy.model_validate(
        {
            "teachers": ["up/m"],
            "student": {"base": "SmolLM2-135M-Instruct", "recipe": recipe},
            "retrain": {"learning_rate": 8e-4} if recipe == "lora" else {},
            "selective": {"max_risk": max_risk},
        }
    )
    job = Job(str(OUT), policy, folder, partial(_show, f"{task.name} {recipe}"))
    job.__dict__["data"] = Dataset(
        train=task.train, validation=task.validation, test=task.test, manifest=_manifest(task.name)
    )
    made = RECIPES[recipe](job)
    made.prepare()
    told, artefact = folder / "trained.json", folder / "artefact"
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        seconds = made.train()["seconds"]
        shutil.rmtree(artefact, ignore_errors=True)
        artefact.mkdir()
        made.export(artefact)
        told.write_text(json.dumps({"seconds": seconds}))
    served = made.exported(artefact)
    generate: Any = served.generate
    most = made.most_tokens([e.answer for part in task[1:] for e in part])
    validation, test = (
        evaluate(
            generate,
            examples,
            partial(score, "json_fields"),
            max_new_tokens=most,
            drafts=[e.answer for e in examples],
            phase=phase,
            progress=job.progress,
        )
        for phase, examples in (("validation", task.validation), ("test", task.test))
    )
    assessed = assess(artefact, validation, task.validation, task.train, selective=SelectivePolicy(max_risk=max_risk))
    return Made(
        artefact,
        _answers(artefact, validation, task.validation),
        _answers(artefact, test, task.test),
        assessed,
        json.loads(told.read_text())["seconds"],
        one_by_one(made.exported(artefact), [e.messages for e in task.test[:TIMED]], most),
    )


def one_by_one(served: Generator, prompts: Sequence[list[dict[str, Any]]], most: int) -> float:
    """Milliseconds of one answer, each decoded by itself, of a student that has read none of them yet."""
    began = time.monotonic()
    for prompt in prompts:
        served.generate([prompt], max_new_tokens=most)
    return 1000 * (time.monotonic() - began) / len(prompts)


def _answers(artefact: Path, report: Report, examples: Sequence[Example]) -> Answers:
    known = Confidence.load(artefact)
    sure = [
        known.of(o.whole, novelty=known.novelty(e.messages)) if o.whole else 0.0
        for o, e in zip(report.outcomes, examples, strict=True)
    ]
    return Answers(report, np.array(sure), np.array([float(o.value or 0.0) for o in report.outcomes]))


def _example(number: int, system: str, text: str, answer: dict[str, str]) -> Example:
    name = f"x{number}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return Example(
        id=name, offset=number, at=0.0, cluster=name, messages=messages, answer=json.dumps(answer), group=name
    )


def _manifest(name: str) -> DatasetManifest:
    return DatasetManifest(
        route=name, digest="", first=0, end=0, read=0, counts={}, groups=0, dropped={}, upstreams={}, scrubbers={}
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"{path} is not there; --data takes the folder that holds it")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [msgspec.json.decode(line) for line in lines]


def _show(what: str, phase: str, done: int, total: int, left: float | None) -> None:
    if done % 20 == 0 or done == total:
        print(f"{what}: {phase} {done}/{total}" + (f", {left:.0f} s left" if left else ""), flush=True)
