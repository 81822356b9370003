"""What each phase of a cycle does. Everything is read from, and left in, the cycle's folder."""

import gc
import hashlib
import importlib.metadata
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from collector import Interactions
from exporters.models import Manifest, Store, record_golden
from retrainer.data.curate import Example
from retrainer.data.dataset import build, write
from retrainer.data.held_out import read_held_out
from retrainer.evaluation.assess import Assessment, assess
from retrainer.evaluation.evaluate import Report, Scorer, evaluate
from retrainer.evaluation.gate import Verdict
from retrainer.recipes import RECIPES, Job
from retrainer.state import Request
from router.config import Config

if TYPE_CHECKING:
    from retrainer.evaluation.generate import Generator  # heavy: torch

# Held-out records that a model answers at the most: with 1,000 the interval is about one point to either side.
MOST_JUDGED = 1000
GOLDEN_DRAWN = 16  # prompts among which the few golden ones are chosen

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "onnxruntime",
    "onnxruntime-genai",
    "tokenizers",
    "safetensors",
)


class Phases:
    """One cycle's work. Heavy libraries are imported by the phase that needs them."""

    def __init__(self, config: Config, request: Request, job: Job) -> None:
        self._config, self._request, self._job = config, request, job
        self._policy, self._folder = job.policy, job.folder
        self._recipe = RECIPES[job.student.recipe](job)

    def prepare(self) -> str:
        """Find what the student starts from, converting it at the first cycle; returns its revision."""
        return self._recipe.prepare()

    def dataset(self, interactions: Interactions) -> dict[str, Any]:
        """Build and write the data set; returns its manifest."""
        most = self._policy.retrain.max_examples
        made = build(interactions, self._request.route, max_examples=most, fits=self._recipe.fits)
        write(made, self._folder / "dataset")
        return dict(msgspec.to_builtins(made.manifest))

    def train(self) -> dict[str, Any]:
        """Train the student."""
        return {"examples": len(self._job.data.train), **self._recipe.train()}

    def evaluate_base(self, scorer: Scorer) -> Report:
        """What answers without any training."""
        return self._evaluate(self._recipe.baseline(), "evaluate_base", scorer, drafts=None)

    def evaluate_student(self, scorer: Scorer) -> Report:
        """What the trained, unquantized model answers."""
        teachers = [e.answer for e in self._judged]  # most are the student's own, and are only checked
        return self._evaluate(self._recipe.trained(), "evaluate_student", scorer, drafts=teachers)

    def export(self) -> dict[str, Any]:
        """Write and load-test what will be served; the training's checkpoint isn't needed any more."""
        (self._folder / "train" / "checkpoint.safetensors").unlink(missing_ok=True)
        staging, out = self._folder / ".artefact.tmp", self._folder / "artefact"
        for folder in (staging, out):
            shutil.rmtree(folder, ignore_errors=True)
        staging.mkdir()
        made = self._recipe.export(staging)
        staging.rename(out)
        return {**made, "bytes": sum(p.stat().st_size for p in out.iterdir())}

    def evaluate_quantized(self, scorer: Scorer, student: Report) -> Report:
        """What will be served. The unquantized student's answers are drafts: most are right, and only checked."""
        generator = self._recipe.exported(self._folder / "artefact")
        drafts = [o.text for o in student.outcomes]
        return self._evaluate(generator, "evaluate_quantized", scorer, drafts=drafts)

    def assess(self, quantized: Report) -> Assessment:
        """Calibrate the confidence of what will be served; its files join the artefact's."""
        return assess(
            self._folder / "artefact", quantized, self._judged, self._job.data.train, selective=self._policy.selective
        )

    def publish(self, phases: Mapping[str, Any], reports: Mapping[str, Report], verdict: Verdict) -> str:
        """Put the artefact into the store, with golden answers and its manifest; returns its id."""
        artefact = self._folder / "artefact"
        store = Store(self._config.artefacts)
        staging = store.staging(self._request.cycle_id)
        shutil.copytree(artefact, staging, dirs_exist_ok=True)
        training = dict(phases["train"])
        losses = training.pop("losses")
        manifest = Manifest(
            id=self._request.cycle_id,
            route=self._request.route,
            kind=self._policy.kind.value,
            runtime=self._recipe.runtime,
            base=Path(self._job.student.base).name,
            base_revision=phases["prepare"],
            quantization=phases["export"]["quantization"],
            created_at=time.time(),
            files={},
            dataset=phases["dataset"],
            training={**training, "first_loss": losses[0], "last_loss": losses[-1]},
            report={**{name: report.summary() for name, report in reports.items()}, "confidence": phases["assess"]},
            gate=msgspec.to_builtins(verdict),
            golden=self._golden(artefact, reports["base"]),
            packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        )
        return store.add(staging, manifest).id

    def _golden(self, artefact: Path, base: Report) -> list[dict[str, Any]]:
        drawn = self._judged[:GOLDEN_DRAWN]
        return record_golden(
            self._recipe.exported(artefact),
            [e.messages for e in drawn],
            max_new_tokens=self._max_new_tokens,
            base={i: base.outcomes[i].text for i in range(len(drawn))},
        )

    def _evaluate(self, generator: "Generator", phase: str, scorer: Scorer, *, drafts: list[str] | None) -> Report:
        try:
            return evaluate(
                generator.generate,
                self._judged,
                scorer,
                max_new_tokens=self._max_new_tokens,
                drafts=drafts,
                phase=phase,
                progress=self._job.progress,
            )
        finally:
            del generator
            gc.collect()  # half a gigabyte, before the next model comes

    @cached_property
    def _judged(self) -> list[Example]:
        """The records to evaluate on: the given ones, or a fixed draw of the held-out part."""
        given = self._request.held_out or self._policy.retrain.held_out
        if given is not None:
            return read_held_out(Path(given))
        watched = {e.id for e in self._job.watched}
        held_out = [e for e in self._job.data.held_out if e.id not in watched]
        drawn = sorted(held_out, key=lambda e: hashlib.sha256(f"judge:{e.id}".encode()).digest())
        return drawn[:MOST_JUDGED]

    @cached_property
    def _max_new_tokens(self) -> int:
        return self._recipe.most_tokens([e.answer for e in (*self._job.data.train, *self._judged)])
