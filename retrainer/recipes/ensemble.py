"""An ensemble teaches: the text that most teachers (the logged one included) give is the hard target, the weighted mean
of their distributions the soft one (Hinton et al. 2015; majority as in self-consistency, Wang et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from exporters.models import write_atomic
from retrainer.data.curate import Example
from retrainer.errors import CycleError
from retrainer.evaluation.generate import TorchGenerator, longest_answer
from retrainer.job import Job
from retrainer.progress import Meter
from retrainer.train.losses import divergence, mixture
from retrainer.train.models import open_teacher, teacher_folder
from retrainer.train.objectives import Step, on_completions, taught
from retrainer.train.stage import Stage, train_stage

PIECE = 256  # prompts: two batches of short ones, and minutes of a large teacher


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """The teachers answer every prompt; then one LoRA stage on the majority's texts and the mixture's targets."""
    distil, names = job.policy.retrain.distil, _names(job)
    said, weights = votes(job, names), distil.weights or (1.0,) * len(names)
    texts = [
        e.answer if e.corrected else majority(e.answer, found, weights)
        for e, found in zip(job.learnt, said, strict=True)
    ]
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
        return step.mixed(soft, distil.alpha)

    stage = Stage(name="student", start=job.base.folder, out=merged, rows=rows)
    facts = train_stage(job, stage, on_completions(job, objective))
    outvoted = sum(text != e.answer for e, text in zip(job.learnt, texts, strict=True))
    return {**facts, "teachers": list(names), "outvoted": outvoted}


def votes(job: Job, names: tuple[str, ...], *, size: int = PIECE) -> list[list[str]]:
    """What each teacher answers to each training prompt, in the teachers' order; kept in the job's folder, in pieces of
    `size` prompts: a killed run asks again for the piece that it was at."""
    teachers = [(name, _pieces(job.folder / f"votes-{number}", job.learnt, size)) for number, name in enumerate(names)]
    kept = sum(len(some) for _, pieces in teachers for file, some in pieces if file.is_file())
    meter = Meter(job.progress, "votes", len(names) * len(job.learnt), done=kept)
    for name, pieces in teachers:
        lacking = [(file, some) for file, some in pieces if not file.is_file()]
        if lacking:
            kept = _ask(job, name, lacking, meter, done=kept)
    by_teacher = [
        [text for file, _ in pieces for text in msgspec.json.decode(file.read_bytes(), type=list[str])]
        for _, pieces in teachers
    ]
    return [list(one) for one in zip(*by_teacher, strict=True)]


def _pieces(folder: Path, examples: Sequence[Example], size: int) -> list[tuple[Path, Sequence[Example]]]:
    folder.mkdir(parents=True, exist_ok=True)
    return [(folder / f"{at}.json", examples[at : at + size]) for at in range(0, len(examples), size)]


def _ask(job: Job, name: str, pieces: list[tuple[Path, Sequence[Example]]], meter: Meter, *, done: int) -> int:
    """Let a teacher answer pieces, and keep each. Returns how much is done in all, of which `done` was before."""
    most = longest_answer(job.tokenizer, [e.said for e in job.learnt])
    generator = TorchGenerator(teacher_folder(job, name))
    for file, some in pieces:
        drafts = [e.said for e in some]  # most are the teacher's own, and are only checked
        found = generator.generate(
            [e.messages for e in some],
            max_new_tokens=most,
            drafts=drafts,
            tick=lambda new, before=done: meter(before + new),  # type: ignore[misc]
        )
        write_atomic(file, msgspec.json.encode([one.text for one in found]))
        done += len(some)
    return done


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
