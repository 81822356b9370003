"""An ensemble teaches: the text that most teachers (the logged one included) give is the hard target, the weighted mean
of their distributions the soft one (Hinton et al. 2015; majority as in self-consistency, Wang et al. 2022)."""

from pathlib import Path
from typing import Any

import msgspec
import torch

from exporters.models import write_atomic
from retrainer.errors import CycleError
from retrainer.evaluation.generate import TorchGenerator, longest_answer
from retrainer.job import Job
from retrainer.train.losses import divergence, mixture
from retrainer.train.models import open_teacher, teacher_folder
from retrainer.train.objectives import Step, on_completions, taught
from retrainer.train.stage import Stage, train_stage


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """The teachers answer every prompt; then one LoRA stage on the majority's texts and the mixture's targets."""
    distil, names = job.policy.retrain.distil, _names(job)
    said, weights = votes(job, names), distil.weights or (1.0,) * len(names)
    texts = [majority(e.answer, found, weights) for e, found in zip(job.learnt, said, strict=True)]
    voted = [  # another answer has other thinking, which nobody knows
        msgspec.structs.replace(e, answer=text, reasoning=e.reasoning if text == e.answer else "")
        for e, text in zip(job.learnt, texts, strict=True)
    ]
    rows = [row for row in map(job.row, voted) if job.fits(row)]
    if not rows:
        raise CycleError("recipe ensemble: no text that won the vote fits into retrain.max_tokens; raise it")
    teachers = [open_teacher(job, name) for name in names]

    def objective(step: Step) -> torch.Tensor:
        targets = mixture([taught(teacher, step) for teacher in teachers], weights, distil.temperature)
        soft = divergence(step.logits, targets, distil.temperature)
        return distil.alpha * soft + (1 - distil.alpha) * step.hard()

    stage = Stage(name="student", start=job.base.folder, out=merged, rows=rows)
    facts = train_stage(job, stage, on_completions(job, objective))
    outvoted = sum(text != e.answer for e, text in zip(job.learnt, texts, strict=True))
    return {**facts, "teachers": list(names), "outvoted": outvoted}


def votes(job: Job, names: tuple[str, ...]) -> list[list[str]]:
    """What each teacher answers to each training prompt, in the teachers' order; kept in the job's folder."""
    examples = job.learnt
    most = longest_answer(job.tokenizer, [e.said for e in examples])
    by_teacher = []
    for number, name in enumerate(names):
        file = job.folder / f"votes-{number}.json"
        if not file.is_file():
            generator = TorchGenerator(teacher_folder(job, name))
            drafts = [e.said for e in examples]  # most are the teacher's own, and are only checked
            found = generator.generate([e.messages for e in examples], max_new_tokens=most, drafts=drafts)
            write_atomic(file, msgspec.json.encode([one.text for one in found]))
        by_teacher.append(msgspec.json.decode(file.read_bytes(), type=list[str]))
    return [list(one) for one in zip(*by_teacher, strict=True)]


def majority(logged: str, said: list[str], weights: tuple[float, ...]) -> str:
    """The text with the most votes; the logged answer has the mean weight, and wins a tie. (Where no two agree, as with
    free text, the logged one stays unless a weight says otherwise.)"""
    counts = {logged: sum(weights) / len(weights)}
    for text, weight in zip(said, weights, strict=True):
        counts[text] = counts.get(text, 0.0) + weight
    return max(counts, key=lambda text: (counts[text], text == logged))


def _names(job: Job) -> tuple[str, ...]:
    names = job.policy.retrain.distil.teachers
    if len(names) < 2:
        raise CycleError("recipe ensemble: name at least two models in retrain.distil.teachers")
    return names
