"""Cuts a smaller student out of a teacher, and writes it as a folder that a stage can start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from exporters.models import write_atomic, write_dense
from retrainer.job import Job
from retrainer.train.batches import completion_logits, order
from retrainer.train.features import decoder_layers
from retrainer.train.models import open_student
from retrainer.train.objectives import batch_of
from retrainer.train.surgery import (
    Read,
    check_shapes,
    check_written,
    ffn_importance,
    hidden_importance,
    keep_ffn,
    keep_hidden,
    keep_layers,
    layer_importance,
    most_important,
    rounded,
    spread,
)

CALIBRATED = 64  # examples that importance is measured on; Minitron takes 1,024 of a general corpus


def reader(job: Job) -> Read:
    """Lets a model read a few of the route's training examples, one by one: nothing is padded, and what their prompts
    share is read with each."""
    rows, retrain = job.rows, job.policy.retrain
    drawn = [i for some in order(rows, size=retrain.batch_size, seed=retrain.seed, epoch=0) for i in some][:CALIBRATED]

    def read(model: Any) -> None:
        with torch.no_grad():
            for number in drawn:
                completion_logits(model, batch_of(job, [rows[number]]))

    return read


def kept_layers(job: Job, model: Any, count: int) -> list[int]:
    """Which `count` of a model's layers stay, by `distil.layers`."""
    if job.policy.retrain.distil.layers == "spread":
        return spread(len(decoder_layers(model)), count)
    return most_important(layer_importance(model, reader(job)), count)


def prune(job: Job, model: Any, start: Path, out: Path, *, share: float | None = None) -> None:
    """Cut `model` (of the folder `start`) in depth, then in feed-forward neurons, then in hidden channels, by the
    shares that the policy keeps, and write it to `out`. `share`: cut in depth alone, to that share of the layers.
    Raises CycleError where its architecture can't be cut so."""
    distil = job.policy.retrain.distil
    if share is not None:
        distil = distil.model_copy(update={"keep_layers": share, "keep_ffn": 1.0, "keep_hidden": 1.0})
    deep = len(decoder_layers(model))
    keep_layers(model, kept_layers(job, model, max(1, round(deep * distil.keep_layers))))
    neurons, channels = model.config.intermediate_size, model.config.hidden_size
    if (left := rounded(distil.keep_ffn, neurons)) < neurons:
        keep_ffn(model, [_greatest(i, left) for i in ffn_importance(model, reader(job))])
    if (left := rounded(distil.keep_hidden, channels)) < channels:
        keep_hidden(model, _greatest(hidden_importance(model, reader(job)), left))
    check_shapes(model)
    write_dense(model, start, out)
    check_written(model, out)


def cut(job: Job, folder: Path, origins: Sequence[int], count: int, out: Path) -> list[int]:
    """Leave `count` layers of the model in `folder`, and write it to `out`, once. `origins`: which of the teacher's
    layers it has; returns those that are left."""
    record = out / "origins.json"
    if not record.is_file():
        model = open_student(folder)
        kept = kept_layers(job, model, count)
        keep_layers(model, kept)
        write_dense(model, folder, out)
        check_written(model, out)
        write_atomic(record, msgspec.json.encode([origins[i] for i in kept]))
    return msgspec.json.decode(record.read_bytes(), type=list[int])


def _greatest(importance: torch.Tensor, count: int) -> torch.Tensor:
    return importance.topk(count).indices.sort().values
