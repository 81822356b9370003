"""Preference learning: where a shadowed student lost to its teacher, the next one learns to prefer the teacher's answer
to that one (DPO, Rafailov et al. 2023), after it has learnt the texts."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from retrainer.data.render import render
from retrainer.evaluation.text_calls import said
from retrainer.job import Job
from retrainer.scoring import scorer
from retrainer.train.objectives import Step, on_completions
from retrainer.train.preference import Pair, preferring
from retrainer.train.stage import Stage, train_stage
from router import split_thinking

# trl's own examples of an adapter: 5e-6 for DPO (trl/scripts/dpo.py), 2e-4 for texts (trl/scripts/sft.py)
RATE = 1 / 40
OF_PAIRS = 0.2  # of the steps


def fit(job: Job, merged: Path) -> dict[str, Any]:
    """A LoRA stage on the texts; then one on the lost pairs, where there are any: a route's first student has none.
    The pairs have a fifth of the steps, and none is learnt more often than a text is without them."""
    pairs = lost_pairs(job)
    out, share = (job.folder / "texts", 1 - OF_PAIRS) if pairs else (merged, 1.0)
    texts = Stage(name="texts", start=job.base.folder, out=out, share=share)
    stages = [train_stage(job, texts, on_completions(job, Step.hard))]
    if pairs:
        chosen = [pair.chosen for pair in pairs]
        share = min(1.0, OF_PAIRS * len(job.rows) / len(pairs))
        stage = Stage(
            name="pairs", start=texts.out, out=merged, rows=chosen, watched=(), share=share, limit=OF_PAIRS, rate=RATE,
            mean="answers",
        )  # fmt: skip
        stages.append(train_stage(job, stage, preferring(job, pairs)))
    return {**stages[-1], "pairs": len(pairs), "stages": stages}


def lost_pairs(job: Job) -> list[Pair]:
    """The training examples whose shadow pair the student lost by the route's score, calls told apart as where it is
    evaluated. (One that scores 1 is as good.)"""
    score = scorer(job.policy.quality.score, job.state)
    found = []
    for example, row in zip(job.learnt, job.rows, strict=True):
        if example.rejected is None:
            continue
        thought, text = split_thinking(example.rejected)
        answer, reference = (said(t, example.asked) for t in (text, example.answer))
        with suppress(ValueError):  # the teacher's answer is nothing to compare with
            scored = score(answer=answer, reference=reference, finish_reason="stop", asked=example.asked)
            if scored.value < 1.0:
                pair = Pair(row, render(job.tokenizer, example.messages, text, reasoning=thought))
                if job.fits(pair.rejected):
                    found.append(pair)
    return found
