"""Closed answers by a sentence encoder (MiniLM) with a head a field, trained together; served as int8 ONNX.

Beside it stands the linear student, and each has its share of the word: the encoder knows meanings, n-grams know names.
Measured on the 53 sections, 1,200 examples: agreement 75.1% with it and without, 69.8% by n-grams alone; but at a risk
of 2% the two cover 54%, n-grams 48%, and the encoder alone 0.4%, being surest of some of its errors.
"""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import Generated, Messages, Parity, digest, require
from exporters.models.encoder_onnx import packaged_encoder, write_graph
from exporters.models.genai import Tick
from exporters.models.int8 import quantize
from retrainer.evaluation.generator import Generator
from retrainer.job import Job
from retrainer.recipes import linear
from retrainer.recipes.closed import ClosedRecipe, Task, fields_of, settings_of, temperatures
from router.policy_closed import ClosedPolicy

DENSE = "dense.safetensors"
MOST_COMPARED = 256  # texts that an export is compared on
SHARES = (0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.2, 0.9, 1.0)  # tried; the first where all are equal


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

    def write_floats(self, graph: Path) -> None:
        """The trained student as ONNX, before it is rounded."""
        from exporters.models.closed import read_card  # noqa: PLC0415 - numpy
        from exporters.models.closed_encoder import MOST_TOKENS  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import load  # noqa: PLC0415 - heavy: torch

        form = read_card(self._model).form
        student = load(packaged_encoder(), fields_of(form), self._model / DENSE)
        write_graph(student, graph, output="logits", most_tokens=MOST_TOKENS)

    def export(self, artefact: Path) -> dict[str, Any]:
        """See Recipe. The graph is load-tested, and compared with the unrounded one."""
        from exporters.models.closed import CARD, ClosedModel  # noqa: PLC0415 - numpy
        from exporters.models.closed_encoder import GRAPH, TOKENIZER  # noqa: PLC0415 - numpy
        from exporters.models.closed_linear import NGRAMS, WEIGHTS  # noqa: PLC0415 - numpy

        floats = self._job.folder / "train" / "floats"
        floats.mkdir(parents=True, exist_ok=True)
        self.write_floats(floats / GRAPH)
        quantize(floats / GRAPH, artefact / GRAPH)
        for folder in (floats, artefact):
            shutil.copyfile(packaged_encoder() / TOKENIZER, folder / TOKENIZER)
        for name in (CARD, NGRAMS, WEIGHTS):
            shutil.copyfile(self._model / name, artefact / name)
        ClosedModel.load(artefact)
        found = self._near(floats, artefact)
        shutil.rmtree(floats)
        require(found, *self._job.policy.retrain.parity.bounds("int8"))
        return {"quantization": "int8, activations by token", "parity": msgspec.to_builtins(found)}

    def _near(self, exact: Path, rounded: Path) -> Parity:
        """On held-out texts; where there are none, on some that were learnt from."""
        from exporters.models.closed import read_card, text_of  # noqa: PLC0415 - numpy
        from exporters.models.closed_encoder import EncoderScores  # noqa: PLC0415 - numpy
        from exporters.models.parity import choices_parity  # noqa: PLC0415 - with it

        card = read_card(self._model)
        held_out, learnt = self._job.data.held_out, self._job.data.train
        compared = (held_out or learnt)[:MOST_COMPARED]
        texts = [text_of(e.messages, card.shared, card.frame) for e in compared]
        graphs = [EncoderScores.load(folder, card.form) for folder in (exact, rounded)]
        one, other = ([graph(text)[0] for text in texts] for graph in graphs)
        return choices_parity(one, other, card.form.sizes, of="held-out" if held_out else "training")


def fit(task: Task, folder: Path) -> dict[str, Any]:
    """Train; on what may choose, fit shares and temperatures."""
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
        checkpoint_steps=job.policy.retrain.checkpoint_steps,
        checkpoint_seconds=job.policy.retrain.checkpoint_every,
    )
    rows = encoder.encode(source, [one.text for one in task.learnt], [one.weight for one in task.learnt])
    chosen = [one.numbers for one in task.learnt]
    model = encoder.ClosedEncoder(source, fields_of(task.form))
    checkpoints = job.folder / "train"
    if not (checkpoints / "checkpoint.safetensors").exists():
        encoder.begin(model, rows, chosen, progress=job.progress)
    told: dict[str, Any] = {"losses": [math.fsum(map(math.log, task.form.sizes))], "steps": 0}
    if closed.epochs > 0:
        trained = encoder.train(model, rows, chosen, checkpoints, settings, progress=job.progress)
        told = msgspec.to_builtins(trained)
    encoder.save(model, folder / DENSE)
    linear.learn(task, folder)
    checked = encoder.encode(source, [one.text for one in task.checked])
    logits = encoder.read(model, checked).reshape(-1, sum(task.form.sizes))
    shares, found = _shares(task, logits, linear.checked(task, folder))
    write_card(
        folder,
        Card(kind="encoder", form=task.form, shared=task.shared, frame=task.frame, temperatures=found, shares=shares),
    )
    return {
        **told,
        "settings": {
            **settings_of(job, *ClosedPolicy.model_fields),
            **msgspec.to_builtins(settings),
        },
        "temperatures": list(found),
        "shares": list(shares),
        "seconds": time.monotonic() - began,
    }


def _shares(task: Task, encoder: Any, linear: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each field, by the log loss on `task.checked`: the encoder's share, and the temperature with it."""
    from exporters.models.closed import blend  # noqa: PLC0415 - numpy

    fields = range(len(task.form.fields))
    tried = [
        (share, temperatures(task, blend(task.form.sizes, [share for _ in fields], encoder, linear)))
        for share in SHARES
    ]
    best = [min(tried, key=lambda one, n=n: one[1][n][1]) for n in fields]  # type: ignore[misc]
    return tuple(share for share, _ in best), tuple(found[n][0] for n, (_, found) in enumerate(best))


class _Dense:
    """Generator of the unquantized student, in batches."""

    def __init__(self, folder: Path) -> None:
        from exporters.models.closed import read_card  # noqa: PLC0415 - numpy
        from exporters.models.closed_linear import LinearScores  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import load  # noqa: PLC0415 - heavy: torch

        self._card = read_card(folder)
        self._model = load(packaged_encoder(), fields_of(self._card.form), folder / DENSE)
        self._linear = LinearScores.load(folder, self._card.form)

    def generate(
        self,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        drafts: Sequence[str] | None = None,
        tick: Tick | None = None,
    ) -> list[Generated]:
        """See Generator."""
        import numpy as np  # noqa: PLC0415 - only a cycle pays for it

        from exporters.models.closed import blend, decide, text_of  # noqa: PLC0415 - numpy
        from retrainer.train.encoder import encode, read  # noqa: PLC0415 - heavy: torch

        texts = [text_of(m, self._card.shared, self._card.frame) for m in prompts]
        by_words = np.array([self._linear(text)[0] for text in texts])
        by_meaning = read(self._model, encode(packaged_encoder(), texts))
        both = blend(self._card.form.sizes, self._card.shares, by_meaning, by_words)
        answers = [decide(self._card, row) for row in both]
        if tick:
            tick(len(prompts))
        return answers
