"""A stage is one training that ends in a dense Hugging Face folder. A recipe is a chain of stages; a stage that has its
folder is not trained again, so that a killed chain goes on where it was.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from exporters.models import merge, write_atomic, write_dense
from retrainer.data.render import Row
from retrainer.job import Job
from retrainer.train.chat import learn, opened, save
from retrainer.train.objectives import Build
from retrainer.train.sequence import METHODS, settings

_DONE = "retort-stage.json"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`start`: the folder that the student starts from; `out`: where the trained one will be. `full`: train all
    weights, else a LoRA adapter, which is merged. `rows`: to learn, by default the job's; `watched`: those whose loss
    says when it is over. `share`: of the epochs that the route allows, and of `max_steps` unless `limit` is another;
    `rate`: of the learning rate. `mean`: over what a step's loss is one."""

    name: str
    start: Path
    out: Path
    rows: Sequence[Row] | None = None
    watched: Sequence[Row] | None = None
    full: bool = False
    share: float = 1.0
    limit: float | None = None
    rate: float = 1.0
    mean: Literal["tokens", "answers"] = "tokens"


def train_stage(job: Job, stage: Stage, build: Build, *, finish: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Train, or return what is known of it where it has been; `finish` is called with the trained student before it is
    written. Returns what a manifest keeps. Raises TrainingDiverged, CycleError, ExportFailed."""
    if (stage.out / _DONE).is_file():
        return dict(msgspec.json.decode((stage.out / _DONE).read_bytes()))
    folder, method = job.folder / "train" / stage.name, METHODS["full" if stage.full else "lora"]
    rows = job.rows if stage.rows is None else stage.rows
    watched = job.watched_rows if stage.watched is None else stage.watched
    made = settings(job.policy.retrain, method, share=stage.share, limit=stage.limit, max_steps=job.max_steps)
    made = msgspec.structs.replace(made, learning_rate=made.learning_rate * stage.rate)
    torch.manual_seed(made.seed)
    student, examples = opened(stage.start, made), [*rows, *watched]
    trainable, loss = build(student, examples)
    trained = learn(
        trainable,
        loss,
        folder,
        made,
        rows=rows,
        watched=len(watched),
        units_of=lambda i: len(examples[i].completion) if stage.mean == "tokens" else 1,
        progress=job.progress,
    )
    facts = {"stage": stage.name, "settings": msgspec.to_builtins(made), **msgspec.to_builtins(trained)}
    if finish is not None:
        finish(student)
    if stage.full:
        write_dense(student, stage.start, stage.out)
    else:
        save(student, folder / "adapter")
        probe = rows[0].prompt + rows[0].completion
        moved = merge(stage.start, folder / "adapter", stage.out, probe=probe)
        facts |= {"rank": made.rank, "merged": msgspec.to_builtins(moved)}
    write_atomic(stage.out / _DONE, msgspec.json.encode(facts))
    for name in ("checkpoint", "best"):
        (folder / f"{name}.safetensors").unlink(missing_ok=True)
    return facts
