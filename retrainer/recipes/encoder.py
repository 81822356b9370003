"""Closed answers by a sentence encoder (MiniLM) with a head a field, trained together; served as int8 ONNX."""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import Generated, Messages, digest
from exporters.models.encoder_onnx import packaged_encoder, write_graph
from exporters.models.genai import Tick
from exporters.models.int8 import quantize
from retrainer.evaluation.generator import Generator
from retrainer.recipes.closed import ClosedRecipe, Task, fields_of, settings_of, temperatures
from retrainer.recipes.job import Job

DENSE = "dense.safetensors"


class Encoder(ClosedRecipe):
    """See Recipe."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, fit, base="all-MiniLM-L6-v2")

    def prepare(self) -> str:
        """See Recipe. Raises MissingArtefact."""
        return f"sha256:{digest(packaged_encoder() / 'model.safetensors')}"

    def trained(self) -> Generator:
        """See Recipe. In floats."""
        return _Dense(self._model)

    def export(self, artefact: Path) -> dict[str, Any]:
        """See Recipe. The graph is load-tested."""
        from exporters.models.closed import CARD, ClosedModel, read_card  # noqa: PLC0415 - numpy
        from exporters.models.closed_encoder import GRAPH, TOKENIZER  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import load  # noqa: PLC0415 - heavy: torch

        source, form = packaged_encoder(), read_card(self._model).form
        floats = self._job.folder / "train" / "floats.onnx"
        write_graph(load(source, fields_of(form), self._model / DENSE), floats, output="logits")
        quantize(floats, artefact / GRAPH)
        floats.unlink()
        shutil.copyfile(source / TOKENIZER, artefact / TOKENIZER)
        shutil.copyfile(self._model / CARD, artefact / CARD)
        ClosedModel.load(artefact)
        return {"quantization": "onnxruntime dynamic int8"}


def fit(task: Task, folder: Path) -> dict[str, Any]:
    """Train; on the validation part, fit temperatures."""
    from exporters.models.closed import Card, write_card  # noqa: PLC0415 - numpy
    from retrainer.train import encoder  # noqa: PLC0415 - heavy: torch
    from retrainer.train.loop import LoopSettings  # noqa: PLC0415 - heavy: torch

    began = time.monotonic()
    job, closed, source = task.job, task.job.policy.retrain.closed, packaged_encoder()
    settings = LoopSettings(
        learning_rate=closed.learning_rate,
        batch_size=32,
        epochs=closed.epochs,
        seed=job.policy.retrain.seed,
        max_steps=job.max_steps,
    )
    rows = encoder.encode(source, [text for text, _ in task.learnt])
    chosen = [numbers for _, numbers in task.learnt]
    model = encoder.ClosedEncoder(source, fields_of(task.form))
    checkpoints = job.folder / "train"
    if not (checkpoints / "checkpoint.safetensors").exists():
        encoder.begin(model, rows, chosen, progress=job.progress)
    told: dict[str, Any] = {"losses": [math.fsum(map(math.log, task.form.sizes))], "steps": 0}
    if closed.epochs > 0:
        trained = encoder.train(model, rows, chosen, checkpoints, settings, progress=job.progress)
        told = msgspec.to_builtins(trained)
    encoder.save(model, folder / DENSE)
    checked = encoder.encode(source, [text for text, _ in task.checked])
    logits = encoder.read(model, checked).reshape(len(checked), -1)
    write_card(
        folder,
        card := Card(kind="encoder", form=task.form, shared=task.shared, temperatures=temperatures(task, logits)),
    )
    return {
        **told,
        "settings": {**settings_of(job), **msgspec.to_builtins(settings)},
        "temperatures": list(card.temperatures),
        "seconds": time.monotonic() - began,
    }


class _Dense:
    """Generator of the unquantized student, in batches."""

    def __init__(self, folder: Path) -> None:
        from exporters.models.closed import read_card  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import load  # noqa: PLC0415 - heavy: torch

        self._card = read_card(folder)
        self._model = load(packaged_encoder(), fields_of(self._card.form), folder / DENSE)

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """See Generator."""
        from exporters.models.closed import decide, text_of  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import encode, read  # noqa: PLC0415 - heavy: torch

        rows = encode(packaged_encoder(), [text_of(m, self._card.shared) for m in prompts])
        answers = [decide(self._card, row) for row in read(self._model, rows)]
        if tick:
            tick(len(prompts))
        return answers
