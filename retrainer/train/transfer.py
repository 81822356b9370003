"""What is learnt from inside a teacher: its layers' states, and how its tokens attend to each other. Both come beside
the logit loss, which alone says what to answer; of what is settled (a corrected answer) the text alone is learnt."""

from collections.abc import Sequence
from typing import Any

import torch

from retrainer.data.render import Row
from retrainer.job import Job
from retrainer.train.batches import IGNORED
from retrainer.train.features import (
    RELATIONS,
    decoder_layers,
    layer_map,
    layer_taps,
    mean_of_examples,
    projections,
    relation_heads,
    relation_taps,
    seen,
)
from retrainer.train.losses import hidden_distance, relation_divergence
from retrainer.train.models import causal
from retrainer.train.objectives import Build, Step, on_completions, soft_and_hard
from retrainer.train.step import Loss


def hidden_states(job: Job, teacher: Any, *, origins: Sequence[int] | None = None) -> Build:
    """The logit loss + the mean `hidden_distance` over the student's layers and the example's tokens.

    `origins`: the teacher's layer that each of the student's is to match; by default `layer_map`.
    """

    def build(student: Any, rows: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        mine, theirs = layer_taps(causal(student)), layer_taps(teacher)
        depth, deep = len(decoder_layers(causal(student))), len(decoder_layers(teacher))
        matched = list(origins or layer_map(depth, deep))
        widths = (causal(student).config.hidden_size, teacher.config.hidden_size)
        maps = projections(depth, *widths).to(teacher.device)
        logit_loss = soft_and_hard(teacher, job.policy.retrain.distil)

        def objective(step: Step) -> torch.Tensor:
            loss = logit_loss(step)  # both have read the batch now
            apart = []
            for i, (project, origin) in enumerate(zip(maps, matched, strict=True)):
                pairs = zip(mine.of(str(i), step.batch), theirs.of(str(origin), step.batch), strict=True)
                apart.append(mean_of_examples(step.batch, [hidden_distance(project(s), t) for s, t in pairs]))
            return loss + torch.stack(apart).mean(dim=0)[step.batch.owner] * ~step.batch.settled

        # Projections are trained with the student, and not written with it.
        both = torch.nn.ModuleDict({"student": student, "projections": maps})
        return both, on_completions(job, objective)(student, rows)[1]

    return build


def attention_relations(job: Job, teacher: Any) -> Build:
    """The logit loss + the mean `relation_divergence` of queries, keys and values of the last layer (MiniLMv2 takes one
    layer alone, which leaves the student's others free), from each token that predicts one of the answer to those up to
    it: in the last layer no other token's relations change an answer."""

    def build(student: Any, rows: Sequence[Row]) -> tuple[torch.nn.Module, Loss]:
        last, deepest = len(decoder_layers(causal(student))) - 1, len(decoder_layers(teacher)) - 1
        mine, theirs = relation_taps(causal(student), [last]), relation_taps(teacher, [deepest])
        logit_loss = soft_and_hard(teacher, job.policy.retrain.distil)

        def objective(step: Step) -> torch.Tensor:
            loss = logit_loss(step)
            apart = []
            for name in RELATIONS:
                pair = mine.whole(f"{last}.{name}", step.batch), theirs.whole(f"{deepest}.{name}", step.batch)
                heads = relation_heads(pair[0].shape[-1], pair[1].shape[-1])
                apart.append(relation_divergence(*pair, seen(step.batch), heads=heads))
            return loss + torch.stack(apart).mean(dim=0)[step.batch.labels != IGNORED] * ~step.batch.settled

        return on_completions(job, objective)(student, rows)

    return build
