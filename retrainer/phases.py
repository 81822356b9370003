"""What each phase of a cycle does. Everything is read from, and left in, the cycle's folder."""

import gc
import hashlib
import importlib.metadata
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from collector import Interactions
from exporters.models import QUANTIZERS, GenAIGenerator, Manifest, Store, merge, record_golden, to_onnx
from retrainer.base_models import BaseModel, find
from retrainer.data.curate import Example
from retrainer.data.dataset import Dataset, build, load, write
from retrainer.data.held_out import read_held_out
from retrainer.data.render import render
from retrainer.errors import CycleError
from retrainer.evaluation.assess import Assessment, assess
from retrainer.evaluation.evaluate import Report, Scorer, evaluate
from retrainer.evaluation.gate import Verdict
from retrainer.progress import Progress
from retrainer.state import Request
from router.config import Config
from router.policy import RoutePolicy

# Held-out records that a model answers at the most: with 1,000 the interval is about one point to either side.
MOST_JUDGED = 1000
GOLDEN_DRAWN = 16  # prompts among which the few golden ones are chosen

_PACKAGES = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai", "tokenizers", "safetensors")


class Phases:
    """One cycle's work. Heavy libraries are imported by the phase that needs them."""

    def __init__(self, config: Config, policy: RoutePolicy, request: Request, folder: Path, progress: Progress) -> None:
        if policy.student is None:
            raise CycleError(f"route {request.route!r} has no student")
        self._config, self._policy, self._request = config, policy, request
        self._base_name = policy.student.base
        self._folder, self._progress = folder, progress

    def prepare(self) -> str:
        """Find the base model, converting it at the first cycle; returns its revision."""
        return self._base.revision

    def dataset(self, interactions: Interactions) -> dict[str, Any]:
        """Build and write the data set; returns its manifest."""
        most = self._policy.retrain.max_tokens

        def fits(example: Example) -> bool:
            row = render(self._tokenizer, example.messages, example.answer)
            return len(row.prompt) + len(row.completion) <= most

        made = build(interactions, self._request.route, max_examples=self._policy.retrain.max_examples, fits=fits)
        write(made, self._folder / "dataset")
        return dict(msgspec.to_builtins(made.manifest))

    def train(self) -> dict[str, Any]:
        """Train the adapter."""
        from retrainer.train.chat import Settings, train  # noqa: PLC0415 - heavy: torch, peft

        retrain = self._policy.retrain
        settings = Settings(
            rank=retrain.lora_rank,
            alpha=2 * retrain.lora_rank,
            learning_rate=retrain.learning_rate,
            batch_size=retrain.batch_size,
            epochs=retrain.epochs,
            seed=retrain.seed,
            max_steps=self._request.max_steps,
        )
        rows = [render(self._tokenizer, e.messages, e.answer) for e in self._data.train]
        trained = train(
            self._base.folder,
            rows,
            self._folder / "train",
            settings,
            tokenizer=self._tokenizer,
            progress=self._progress,
        )
        return {"settings": msgspec.to_builtins(settings), "examples": len(rows), **msgspec.to_builtins(trained)}

    def merge(self) -> dict[str, Any]:
        """Merge the adapter into the base; the checkpoint isn't needed any more."""
        example = self._data.train[0]
        row = render(self._tokenizer, example.messages, example.answer)
        adapter = self._folder / "train" / "adapter"
        merged = merge(self._base.folder, adapter, self._folder / "merged", probe=row.prompt + row.completion)
        (self._folder / "train" / "checkpoint.safetensors").unlink(missing_ok=True)
        return dict(msgspec.to_builtins(merged))

    def evaluate_base(self, scorer: Scorer) -> Report:
        """What the untrained model answers."""
        return self._evaluate_torch(self._base.folder, "evaluate_base", scorer, drafts=None)

    def evaluate_student(self, scorer: Scorer) -> Report:
        """What the trained, unquantized model answers."""
        teachers = [e.answer for e in self._judged]  # most are the student's own, and are only checked
        return self._evaluate_torch(self._folder / "merged", "evaluate_student", scorer, drafts=teachers)

    def export(self) -> dict[str, Any]:
        """Write and load-test the quantized graph."""
        staging, out = self._folder / ".artefact.tmp", self._folder / "artefact"
        for folder in (staging, out):
            shutil.rmtree(folder, ignore_errors=True)
        staging.mkdir()
        quantization = self._policy.retrain.quantization
        to_onnx(self._folder / "merged", staging, quantization=quantization, log=self._folder / "export.log")
        staging.rename(out)
        return {"quantization": quantization, "bytes": sum(p.stat().st_size for p in out.iterdir())}

    def evaluate_quantized(self, scorer: Scorer, student: Report) -> Report:
        """What will be served. The unquantized student's answers are drafts: most are right, and only checked."""
        generator = GenAIGenerator(self._folder / "artefact")
        return evaluate(
            generator.generate,
            self._judged,
            scorer,
            max_new_tokens=self._max_new_tokens,
            drafts=[o.text for o in student.outcomes],
            phase="evaluate_quantized",
            progress=self._progress,
        )

    def assess(self, quantized: Report) -> Assessment:
        """Calibrate the confidence of what will be served; its files join the artefact's."""
        return assess(
            self._folder / "artefact", quantized, self._judged, self._data.train, selective=self._policy.selective
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
            runtime="onnxruntime-genai",
            base=self._base.name,
            base_revision=self._base.revision,
            quantization=QUANTIZERS[self._policy.retrain.quantization],
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
            GenAIGenerator(artefact),
            [e.messages for e in drawn],
            max_new_tokens=self._max_new_tokens,
            base={i: base.outcomes[i].text for i in range(len(drawn))},
        )

    def _evaluate_torch(self, folder: Path, phase: str, scorer: Scorer, *, drafts: list[str] | None) -> Report:
        from retrainer.evaluation.generate import TorchGenerator  # noqa: PLC0415 - heavy: torch

        generator = TorchGenerator(folder)
        try:
            return evaluate(
                generator.generate,
                self._judged,
                scorer,
                max_new_tokens=self._max_new_tokens,
                drafts=drafts,
                phase=phase,
                progress=self._progress,
            )
        finally:
            del generator
            gc.collect()  # half a gigabyte, before the next model comes

    @cached_property
    def _base(self) -> BaseModel:
        return find(self._base_name, self._config.state)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

        return AutoTokenizer.from_pretrained(self._base.folder)

    @cached_property
    def _data(self) -> Dataset:
        return load(self._folder / "dataset")

    @cached_property
    def _judged(self) -> list[Example]:
        """The records to evaluate on: the given ones, or a fixed draw of the held-out part."""
        given = self._request.held_out or self._policy.retrain.held_out
        if given is not None:
            return read_held_out(Path(given))
        drawn = sorted(self._data.held_out, key=lambda e: hashlib.sha256(f"judge:{e.id}".encode()).digest())
        return drawn[:MOST_JUDGED]

    @cached_property
    def _max_new_tokens(self) -> int:
        from retrainer.evaluation.generate import longest_answer  # noqa: PLC0415 - heavy: torch

        return longest_answer(self._tokenizer, [e.answer for e in (*self._data.train, *self._judged)])
