"""Models from folders: students, and frozen teachers that share their tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from retrainer.base_models import find
from retrainer.errors import BaseModelError, CycleError
from retrainer.job import Job
from retrainer.train.batches import own_logits
from retrainer.train.loop import device


def open_student(folder: Path) -> Any:
    """A causal language model in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device())


def require_own_logits(model: Any, folder: Path) -> None:
    """Raises BaseModelError for a model whose logits aren't known where only some are taken."""
    if not own_logits(model):
        raise BaseModelError(
            f"{folder}: {type(model).__name__} makes its logits in a way of its own, so they can't be taken where an "
            "answer is predicted alone; take another base"
        )


def causal(student: Any) -> Any:
    """The causal language model itself, adapters in place."""
    return student.get_base_model() if hasattr(student, "get_base_model") else student


def open_teacher(job: Job, name: str | None = None) -> Any:
    """A frozen model by its name or folder, by default the route's. Raises CycleError, BaseModelError."""
    folder = teacher_folder(job, name)
    teacher = open_student(folder).eval().requires_grad_(False)
    require_own_logits(teacher, folder)
    return teacher


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
