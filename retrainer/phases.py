"""What each phase of a cycle does. Everything is read from, and left in, the cycle's folder."""

import gc
import hashlib
import importlib.metadata
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from collector import Interactions
from collector.judge import Ask
from exporters.models import CLOSED, PREFIX_TOKENS, VLLM, Manifest, record_golden, staged
from exporters.models.open_store import open_store
from exporters.models.tool_text import FORM
from retrainer.data.closed import Choices
from retrainer.data.configured import options
from retrainer.data.curate import Example
from retrainer.data.dataset import build, load, write
from retrainer.data.held_out import digest_of, read_held_out
from retrainer.data.suite import grow, keep_taught, read_suite, suite_file
from retrainer.errors import CycleError, NotEnoughExamples
from retrainer.evaluation.asking import Gateway, teacher_again
from retrainer.evaluation.assess import Assessment, assess
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.generator import Generator
from retrainer.evaluation.latency import measure_latency
from retrainer.phases_card import Passed, card
from retrainer.phases_gate import Compared, Setting, compare, heard, safety
from retrainer.recipes import RECIPES, Job
from retrainer.safety import Suite, ask_general
from retrainer.scoring import Scorer
from retrainer.state import BUILDING, Request
from router.config import Config
from router.registry import Version
from router.thinking import written

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
    "scikit-learn",
    "llmcompressor",
    "compressed-tensors",
)


class Phases:
    """One cycle's work. Heavy libraries are imported by the phase that needs them."""

    def __init__(self, config: Config, request: Request, job: Job, *, ask: Ask | None = None) -> None:
        self._config, self._request, self._job = config, request, job
        self._gateway = Gateway(config, ask, progress=job.progress)
        self._policy, self._folder = job.policy, job.folder
        self._recipe = RECIPES[job.student.recipe](job)

    def prepare(self) -> str:
        """Find what the student starts from, converting it at the first cycle; returns its revision."""
        return self._recipe.prepare()

    def dataset(self, interactions: Interactions) -> dict[str, Any]:
        """Build and write the data set, and fill up the regression suite of it; returns its manifest."""
        retrain, route = self._policy.retrain, self._request.route
        building = self._job.dataset.with_name(BUILDING)
        given = self._request.held_out
        how = options(self._config, route, self._policy, building, self._job.progress, held_out=given)
        if self._job.dataset.is_dir():  # of an attempt that was killed before it was noted
            made = load(self._job.dataset)
        else:
            if how.suite is not None and how.teachers is not None:
                keep_taught(how.suite, how.teachers)
            try:
                most = retrain.max_examples
                made = build(interactions, route, max_examples=most, fits=self._recipe.fits, options=how)
            except NotEnoughExamples:
                shutil.rmtree(building)  # the cycle ends here
                raise
            write(made, self._job.dataset)
        if how.suite is not None:
            grow(how.suite, made.test, retrain.data.regression)
        shutil.rmtree(building, ignore_errors=True)
        return dict(msgspec.to_builtins(made.manifest))

    def closed(self) -> dict[str, Any]:
        """Whether the teacher's answers are few; see `retrainer.data.closed`. `held_out_covered`: how many of the
        `held_out` records' answers the form can express, which it has not seen."""
        found, held_out = self._job.closed, self._job.data.held_out
        known = Choices(found.form) if found.form else None
        covered = sum(known is not None and known.of(e.answer) is not None for e in held_out)
        return {**found.summary(), "held_out": len(held_out), "held_out_covered": covered}

    def train(self) -> dict[str, Any]:
        """Train the student."""
        return {"examples": len(self._job.data.train), **self._recipe.train()}

    def evaluate_base(self, scorer: Scorer) -> Report:
        """What answers without any training."""
        return self._evaluate(self._recipe.baseline(), "evaluate_base", scorer, drafts=None, general=True)

    def evaluate_student(self, scorer: Scorer) -> Report:
        """What the trained, unquantized model answers."""
        teachers = [e.said for e in self._judged]  # most are the student's own, and are only checked
        return self._evaluate(self._recipe.trained(), "evaluate_student", scorer, drafts=teachers)

    def export(self) -> dict[str, Any]:
        """Write and load-test what will be served; the training's checkpoint isn't needed any more."""
        (self._folder / "train" / "checkpoint.safetensors").unlink(missing_ok=True)
        out = self._folder / "artefact"
        with staged(out) as staging:
            made = self._recipe.export(staging)
        return {**made, "bytes": sum(p.stat().st_size for p in out.iterdir())}

    def evaluate_quantized(self, scorer: Scorer, student: Report) -> Report:
        """What will be served. The unquantized student's answers are drafts, for what can check them (transformers)."""
        generator = self._recipe.exported(self._folder / "artefact")
        drafts = [o.said for o in student.outcomes]
        report = self._evaluate(generator, "evaluate_quantized", scorer, drafts=drafts, general=True)
        if self._recipe.runtime == VLLM:
            return report  # the same weights answered, but not the engine: of its times that says nothing
        begins = PREFIX_TOKENS if self._policy.selective is not None else 1  # by which a stream is assessed
        latency = measure_latency(
            lambda prompt: generator.generate([prompt], max_new_tokens=self._max_new_tokens),
            [e.messages for e in self._judged],
            first=lambda prompt: generator.generate([prompt], max_new_tokens=begins),
        )
        return msgspec.structs.replace(report, latency=latency)

    def assess(self, quantized: Report) -> Assessment:
        """Calibrate the confidence of what will be served; its files join the artefact's."""
        return assess(
            self._folder / "artefact", quantized, self._judged, self._job.data.train, selective=self._policy.selective
        )

    @property
    def base(self) -> str:
        """The name of what the student starts from."""
        return self._recipe.base

    @property
    def tools(self) -> str | None:
        """In which form the student has learnt to call tools; None where it hasn't."""
        return FORM if self._recipe.runtime != CLOSED and self._job.calls_tools else None

    def teacher(self, scorer: Scorer) -> dict[str, Report]:
        """The teacher's report, asked again; none where the route doesn't say how."""
        asked = teacher_again(self._gateway, self._policy.retrain.gate.teacher_route, self._judged, scorer)
        return {} if asked is None else {"teacher": asked}

    def heard(self, student: Report) -> list[Suite]:
        """What the safety suites find in answers that are there already."""
        return heard(self._setting, student)

    def compare(
        self, interactions: Interactions, scorer: Scorer, reports: Mapping[str, Report], versions: Sequence[Version]
    ) -> Compared:
        """The live version and the teacher on the same records; the newest ones, and the frozen suite; prices; where it
        errs."""
        return compare(self._setting, reports, scorer, interactions, versions)

    def safety(self, quantized: Report) -> list[Suite]:
        """The safety suites, on what will be served."""
        return safety(self._setting, quantized)

    def card(self, passed: Passed, versions: Sequence[Version]) -> dict[str, int]:
        """Write the model card into the artefact. `versions`: the route's."""
        return card(self._setting, passed, self._request.cycle_id, versions)

    def publish(self, passed: Passed) -> str:
        """Put the artefact into the store, with golden answers and its manifest; returns its id."""
        phases, reports = passed.phases, passed.reports
        artefact = self._folder / "artefact"
        store = open_store(self._config)
        training = dict(phases["train"])
        losses = training.pop("losses")
        manifest = Manifest(
            id=self._request.cycle_id,
            route=self._request.route,
            kind=self._policy.kind.value,
            runtime=self._recipe.runtime,
            base=Path(self._recipe.base).name,
            base_revision=phases["prepare"],
            quantization=phases["export"]["quantization"],
            created_at=time.time(),
            files={},
            dataset=phases["dataset"],
            training={**training, **self._job.lineage, "first_loss": losses[0], "last_loss": losses[-1]},
            report={
                **{name: report.summary() for name, report in reports.items()},
                "parity": phases["export"].get("parity"),
                "parity_by": phases["export"].get("parity_by"),
                "confidence": phases["assess"],
                "closed": phases["closed"],
                "ladder": msgspec.to_builtins(passed.ladder),
                "compared": msgspec.convert(phases["compare"], Compared).summary(),
                "safety": [{k: v for k, v in suite.items() if k != "examples"} for suite in phases["safety"]],
            },
            gate=msgspec.to_builtins(passed.verdict),
            tools=self.tools,
            golden=self._golden(artefact, reports["base"]),
            packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        )
        return store.put(artefact, manifest).id

    def _golden(self, artefact: Path, base: Report) -> list[dict[str, Any]]:
        drawn = self._judged[:GOLDEN_DRAWN]
        return record_golden(
            self._recipe.exported(artefact),
            [e.messages for e in drawn],
            max_new_tokens=self._max_new_tokens,
            base={i: base.outcomes[i].text for i in range(len(drawn))},
        )

    def _evaluate(
        self, generator: Generator, phase: str, scorer: Scorer, *, drafts: list[str] | None, general: bool = False
    ) -> Report:
        try:
            report = evaluate(
                generator.generate,
                self._judged,
                scorer,
                max_new_tokens=self._max_new_tokens,
                drafts=drafts,
                phase=phase,
                progress=self._job.progress,
            )
            if general and self._recipe.runtime != CLOSED:  # whatever is asked, that answers as the route does
                asked = ask_general(generator.generate, thinking_tokens=self._thinking_tokens)
                report = msgspec.structs.replace(report, general=asked)
            return report
        finally:
            del generator
            gc.collect()  # half a gigabyte, before the next model comes

    @cached_property
    def _judged(self) -> list[Example]:
        """The records to evaluate on: the given ones, or a fixed draw of the held-out part but for what may choose."""
        given = self._request.held_out or self._policy.retrain.held_out
        if given is not None:
            known = self._job.data.manifest.files.get("held_out")
            if known is not None and digest_of("held_out", Path(given)) != known:
                raise CycleError(
                    f"held_out: {given} was changed since this cycle's data set was built; put back what it was "
                    f"({known}), or cancel the cycle and start another"
                )
            return read_held_out(Path(given))
        choosing = {e.id for e in self._job.choosing}
        held_out = [e for e in self._job.data.held_out if e.id not in choosing]
        drawn = sorted(held_out, key=lambda e: hashlib.sha256(f"judge:{e.id}".encode()).digest())
        return drawn[:MOST_JUDGED]

    @cached_property
    def _frozen(self) -> list[Example]:
        if not self._policy.retrain.data.regression:
            return []
        return read_suite(suite_file(self._config.state, self._request.route))

    @cached_property
    def _setting(self) -> Setting:
        return Setting(
            config=self._config,
            route=self._request.route,
            job=self._job,
            gateway=self._gateway,
            judged=self._judged,
            frozen=self._frozen,
            most_tokens=self._max_new_tokens,
            thinking_tokens=self._thinking_tokens,
        )

    @cached_property
    def _max_new_tokens(self) -> int:
        known = (*self._job.data.train, *self._judged, *self._frozen)
        return self._recipe.most_tokens([e.said for e in known])

    @cached_property
    def _thinking_tokens(self) -> int:
        thoughts = [written(e.reasoning, "") for e in self._job.data.train if e.reasoning]
        return self._recipe.most_tokens(thoughts) if thoughts else 0
