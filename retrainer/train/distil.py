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
from retrainer.recipes import presets
from retrainer.recipes.job import Job
from retrainer.train.batches import IGNORED, Batch, collate, completion_logits
from retrainer.train.chat import Settings, adapted, save
from retrainer.train.loop import device, plan, run
from retrainer.train.losses import divergence, soften
from retrainer.train.step import Loss
from router.policy_distil import DistilPolicy

# Where all weights are trained, the rate that suits an adapter is divided by ten (Schulman et al. 2025, "LoRA without
# regret": LoRA's best rate is about ten times that of full fine-tuning).
FULL_RATE = 0.1

_DONE = "retort-stage.json"

Build = Callable[[Any], tuple[torch.nn.Module, Loss]]  # of a student: what is trained, and its loss
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
    weights, else a LoRA adapter, which is merged. `share`: of the epochs (and of `max_steps`) that the route allows.
    `mean`: over what a step's loss is one."""

    name: str
    start: Path
    out: Path
    rows: Sequence[Row]
    full: bool = False
    share: float = 1.0
    mean: Literal["tokens", "answers"] = "tokens"


def train_stage(job: Job, stage: Stage, build: Build, *, finish: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Train, or return what is known of it where it has been; `finish` is called with the trained student before it is
    written. Returns what a manifest keeps. Raises TrainingDiverged, CycleError, ExportFailed."""
    if (stage.out / _DONE).is_file():
        return dict(msgspec.json.decode((stage.out / _DONE).read_bytes()))
    retrain, folder = job.policy.retrain, job.folder / "train" / stage.name
    settings = Settings(
        method="full" if stage.full else "lora",
        rank=retrain.lora_rank,
        alpha=presets.alpha(retrain),
        targets=retrain.lora_targets,
        learning_rate=presets.learning_rate(retrain, "lora") * (FULL_RATE if stage.full else 1.0),
        batch_size=retrain.batch_size,
        epochs=retrain.epochs * stage.share,
        seed=retrain.seed,
        max_steps=max(1, round(job.max_steps * stage.share)) if job.max_steps else None,
        checkpoint_steps=retrain.checkpoint_steps,
        checkpoint_seconds=retrain.checkpoint_every * (10.0 if stage.full else 1.0),  # three times the model: 1.6 GB
    )
    torch.manual_seed(retrain.seed)
    student = open_student(stage.start, settings)
    trainable, loss = build(student)
    trained = run(
        trainable,
        plan(stage.rows, settings),
        loss,
        folder,
        settings,
        units_of=lambda i: len(stage.rows[i].completion) if stage.mean == "tokens" else 1,
        progress=job.progress,
    )
    facts = {"stage": stage.name, "settings": msgspec.to_builtins(settings), **msgspec.to_builtins(trained)}
    if finish is not None:
        finish(student)
    if stage.full:
        write_dense(student, stage.start, stage.out)
    else:
        save(student, folder / "adapter")
        probe = stage.rows[0].prompt + stage.rows[0].completion
        moved = merge(stage.start, folder / "adapter", stage.out, probe=probe)
        facts |= {"rank": retrain.lora_rank, "merged": msgspec.to_builtins(moved)}
    write_atomic(stage.out / _DONE, msgspec.json.encode(facts))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return facts


def open_student(folder: Path, settings: Settings | None = None) -> Any:
    """A causal language model in fp32 to train: all its weights, or where the settings' method is lora, adapters beside
    its linear layers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device())
    return model if settings is None or settings.method == "full" else adapted(model, settings)


def causal(student: Any) -> Any:
    """The causal language model itself, adapters in place."""
    return student.get_base_model() if hasattr(student, "get_base_model") else student


def open_teacher(job: Job, name: str | None = None) -> Any:
    """A frozen model by its name or folder, by default the route's. Raises CycleError, BaseModelError."""
    folder = teacher_folder(job, name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device()).eval()
    return model.requires_grad_(False)


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


def on_completions(job: Job, rows: Sequence[Row], objective: Objective) -> Build:
    """The usual way to train: an objective of the student's logits at the completions' tokens, each token's times its
    example's weight."""

    def build(student: Any) -> tuple[torch.nn.Module, Loss]:
        def loss(numbers: list[int]) -> tuple[torch.Tensor, int]:
            batch = batch_of(job, [rows[i] for i in numbers])
            labels = batch.labels[batch.labels != IGNORED]
            step = Step(numbers, batch, completion_logits(causal(student), batch), labels)
            return (batch.weights * objective(step)).sum(), batch.tokens

        return student, loss

    return build


def batch_of(job: Job, rows: Sequence[Row]) -> Batch:
    """Rows as one batch."""
    return collate(rows, pad=job.tokenizer.pad_token_id or 0, device=device())
