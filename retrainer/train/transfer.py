"""What is learnt from inside a teacher: its layers' states, and how its tokens attend to each other. Both come beside
the logit loss, which alone says what to answer."""

from collections.abc import Sequence
from typing import Any

import torch

from retrainer.data.render import Row
from retrainer.recipes.job import Job
from retrainer.train.distil import Build, Step, causal, on_completions, soft_and_hard
from retrainer.train.features import (
    RELATIONS,
    decoder_layers,
    layer_map,
    layer_taps,
    projections,
    real_tokens,
    relation_heads,
    relation_taps,
)
from retrainer.train.losses import hidden_distance, relation_divergence
from retrainer.train.step import Loss


def hidden_states(job: Job, rows: Sequence[Row], teacher: Any, *, origins: Sequence[int] | None = None) -> Build:
    """The logit loss + the mean `hidden_distance` over the student's layers, at all real tokens.

    `origins`: the teacher's layer that each of the student's is to match; by default `layer_map`.
    """

    def build(student: Any) -> tuple[torch.nn.Module, Loss]:
        mine, theirs = layer_taps(causal(student)), layer_taps(teacher)
        depth, deep = len(decoder_layers(causal(student))), len(decoder_layers(teacher))
        matched = list(origins or layer_map(depth, deep))
        widths = (causal(student).config.hidden_size, teacher.config.hidden_size)
        maps = projections(depth, *widths).to(teacher.device)
        logit_loss = soft_and_hard(teacher, job.policy.retrain.distil)

        def objective(step: Step) -> torch.Tensor:
            loss = logit_loss(step)  # both have read the batch now
            real = real_tokens(step.batch)
            apart = [
                hidden_distance(project(mine[str(i)][real]), theirs[str(origin)][real])
                for i, (project, origin) in enumerate(zip(maps, matched, strict=True))
            ]
            return loss + torch.stack(apart).mean()

        return _together(student, maps, on_completions(job, rows, objective))

    return build


def attention_relations(job: Job, rows: Sequence[Row], teacher: Any) -> Build:
    """The logit loss + the mean `relation_divergence` of queries, keys and values of the last layer (MiniLMv2 takes one
    layer alone, which leaves the student's others free)."""

    def build(student: Any) -> tuple[torch.nn.Module, Loss]:
        last, deepest = len(decoder_layers(causal(student))) - 1, len(decoder_layers(teacher)) - 1
        mine, theirs = relation_taps(causal(student), [last]), relation_taps(teacher, [deepest])
        logit_loss = soft_and_hard(teacher, job.policy.retrain.distil)

        def objective(step: Step) -> torch.Tensor:
            loss = logit_loss(step)
            real = real_tokens(step.batch)
            apart = []
            for name in RELATIONS:
                pair = mine[f"{last}.{name}"], theirs[f"{deepest}.{name}"]
                heads = relation_heads(pair[0].shape[-1], pair[1].shape[-1])
                apart.append(relation_divergence(*pair, real, heads=heads))
            return loss + torch.stack(apart).mean()

        return on_completions(job, rows, objective)(student)

    return build


def _together(student: Any, maps: torch.nn.ModuleList, build: Build) -> tuple[torch.nn.Module, Loss]:
    """Trained with the student, and not written with it."""
    return torch.nn.ModuleDict({"student": student, "projections": maps}), build(student)[1]
