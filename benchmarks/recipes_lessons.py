"""What some recipes learn from beside the texts: an API's log probabilities, and pairs that a student lost."""

import json
from pathlib import Path

import msgspec
import torch

from collector.record import TokenLogprob
from retrainer.data.curate import Example
from retrainer.evaluation.generate import TorchGenerator
from retrainer.recipes import RECIPES, Job
from retrainer.train.batches import IGNORED, completion_logits
from retrainer.train.models import open_student
from retrainer.train.objectives import batch_of


def told(job: Job, teacher: Path) -> list[Example]:
    """The examples with what an API would tell of its answers' tokens."""
    model, found = open_student(teacher).eval(), []
    for example, row in zip(job.data.train, job.rows, strict=True):
        batch = batch_of(job, [row])
        with torch.no_grad():
            logs = completion_logits(model, batch).log_softmax(dim=-1)
        tokens = []
        for place, token in zip(logs[:-1], batch.labels[batch.labels != IGNORED][:-1], strict=True):
            best = place.topk(20)
            top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            spelt = {job.tokenizer.decode([i]): value for i, value in top}
            tokens.append(TokenLogprob(job.tokenizer.decode([int(token)]), float(place[token]), spelt))
        found.append(msgspec.structs.replace(example, logprobs=tuple(tokens)))
    return found


def lost(earlier: Job) -> list[Example]:
    """The examples with the answers of an earlier student, as shadow pairs hold them."""
    file, train = earlier.folder / "answers.json", earlier.data.train
    if not file.exists():
        RECIPES["lora"](earlier).train()
        most = RECIPES["lora"](earlier).most_tokens([e.answer for e in train])
        generator = TorchGenerator(earlier.folder / "merged")
        said = generator.generate([e.messages for e in train], max_new_tokens=most, drafts=[e.answer for e in train])
        file.write_text(json.dumps([one.text for one in said]))
    said = json.loads(file.read_text())
    return [msgspec.structs.replace(e, rejected=s if s != e.answer else None) for e, s in zip(train, said, strict=True)]
