"""Models from folders: students, and frozen teachers that share their tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from retrainer.base_models import find
from retrainer.errors import CycleError
from retrainer.job import Job
from retrainer.train.loop import device


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
