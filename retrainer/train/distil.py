"""What recipes share that learn from a local teacher: frozen teachers, students that open and close, and stages.

A stage is one training that ends in a dense Hugging Face folder. A recipe is a chain of stages; a stage that has its
folder is not trained again, so that a killed chain goes on where it was.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from exporters.models import merge, write_atomic, write_dense
from retrainer.base_models import find
from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.recipes.job import Job
from retrainer.recipes.sequence import METHODS, settings
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits
from retrainer.train.chat import learn, opened, save
from retrainer.train.loop import device
from retrainer.train.losses import divergence, soften
from retrainer.train.step import Loss
from router.policy_distil import DistilPolicy

_DONE = "retort-stage.json"

# Of a student and the examples that losses number: what is trained, and its loss.
Build = Callable[[Any, Sequence[Row]], tuple[torch.nn.Module, Loss]]
Objective = Callable[["Step"], torch.Tensor]  # one value for each token to predict, [N]


class Step(msgspec.Struct, frozen=True):
    """One batch as an objective sees it. `numbers`: of its examples. `logits` [N, V]: the student's, where the `labels`
    [N], the tokens of the logged answers, are to be predicted."""

    numbers: list[int]
    batch: Batch
    logits: torch.Tensor
    labels: torch.Tensor

    def hard(self) -> torch.Tensor:
        """The cross-entropy of the logged answers, [N]."""
        return cross_entropy(self.logits.float(), self.labels, reduction="none")


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`start`: the folder that the student starts from; `out`: where the trained one will be. `full`: train all
    weights, else a LoRA adapter, which is merged. `rows`: to learn, by default the job's; `watched`: those whose loss
    says when it is over. `share`: of the epochs (and of `max_steps`) that the route allows. `mean`: over what a step's
    loss is one."""

    name: str
    start: Path
    out: Path
    rows: Sequence[Row] | None = None
    watched: Sequence[Row] | None = None
    full: bool = False
    share: float = 1.0
    mean: Literal["tokens", "answers"] = "tokens"


def train_stage(job: Job, stage: Stage, build: Build, *, finish: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Train, or return what is known of it where it has been; `finish` is called with the trained student before it is
    written. Returns what a manifest keeps. Raises TrainingDiverged, CycleError, ExportFailed."""
    if (stage.out / _DONE).is_file():
        return dict(msgspec.json.decode((stage.out / _DONE).read_bytes()))
    folder, method = job.folder / "train" / stage.name, METHODS["full" if stage.full else "lora"]
    rows = job.rows if stage.rows is None else stage.rows
    watched = job.watched_rows if stage.watched is None else stage.watched
    made = settings(job.policy.retrain, method, share=stage.share, max_steps=job.max_steps)
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


def open_student(folder: Path) -> Any:
    """A causal language model in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device())


def causal(student: Any) -> Any:
    """The causal language model itself, adapters in place."""
    return student.get_base_model() if hasattr(student, "get_base_model") else student


def open_teacher(job: Job, name: str | None = None) -> Any:
    """A frozen model by its name or folder, by default the route's. Raises CycleError, BaseModelError."""
    return open_student(teacher_folder(job, name)).eval().requires_grad_(False)


def teacher_folder(job: Job, name: str | None = None) -> Path:
    """Where a teacher lies, once it is known to share the student's tokenizer. Raises CycleError, BaseModelError."""
    name = name or job.policy.retrain.distil.teacher
    if name is None:
        raise CycleError(f"recipe {job.student.recipe} learns from a local teacher: name one in retrain.distil.teacher")
    folder = find(name, job.state).folder
    if AutoTokenizer.from_pretrained(folder).get_vocab() != job.tokenizer.get_vocab():
        raise CycleError(
            f"the teacher {name} and the student {job.student.base} have different tokenizers: its distributions are "
            "over other tokens; take a student of the same family, or the recipe lora, which learns from texts"
        )
    return folder


def taught(teacher: Any, step: Step) -> torch.Tensor:
    """A teacher's logits [N, V] at the student's places. (Vocabularies are padded to different sizes: cut to V.)"""
    with torch.no_grad():
        logits = completion_logits(teacher, step.batch)
    width = step.logits.shape[-1]
    if logits.shape[-1] < width:
        raise CycleError(f"the teacher knows {logits.shape[-1]} tokens, the student {width}: resize one of them")
    return logits[:, :width]


def soft_and_hard(teacher: Any, distil: DistilPolicy) -> Objective:
    """alpha T^2 KL(teacher || student) at T + (1 - alpha) cross-entropy of the logged answers, [N]."""

    def objective(step: Step) -> torch.Tensor:
        soft = divergence(step.logits, soften(taught(teacher, step), distil.temperature), distil.temperature)
        return distil.alpha * soft + (1 - distil.alpha) * step.hard()

    return objective


def on_completions(job: Job, objective: Objective) -> Build:
    """The usual way to train: an objective of the student's logits at the completions' tokens, each token's times its
    example's weight."""

    def build(student: Any, rows: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            batch = batch_of(job, [rows[i] for i in numbers])
            labels = batch.labels[batch.labels != IGNORED]
            step = Step(numbers, batch, completion_logits(causal(student), batch), labels)
            return (batch.weights * objective(step)).sum(), batch.tokens

        return student, loss

    return build


def batch_of(job: Job, rows: Sequence[Row]) -> Batch:
    """Rows as one batch, as the route's policy lays them out."""
    width = settings(job.policy.retrain, "lora").row_width
    return collate(rows, pad=job.tokenizer.pad_token_id or 0, device=device(), width=width)
