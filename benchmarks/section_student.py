"""A chat student that can't be promoted whole: SmolLM2 on the 53 sections of Debian's archive, its answers recorded.

Trains LoRA on 1,500 package records (name and synopsis in, section out), merges, quantizes to int8, and lets the
result answer 3,000 others with ONNX Runtime, as it would serve them. What it said, how sure it was of its tokens, and
how unlike the training set each input is go to benchmarks/data/section_answers.jsonl.gz. About 20 minutes on two cores;
what is finished in out/section is not done again.

    .venv/bin/python benchmarks/section_student.py [--data ../shared/data/packages.jsonl.gz]
"""

import argparse
import gzip
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from recipes_tasks import SECTION
from transformers import AutoTokenizer

from exporters.models import GenAIGenerator, merge, to_onnx, write_atomic
from exporters.models.novelty import Neighbours
from retrainer.base_models import find
from retrainer.data.curate import Example
from retrainer.data.render import render
from retrainer.evaluation.evaluate import evaluate
from retrainer.train.chat import Settings, train
from router import score

LEARNT, ANSWERED = 1500, 3000
ROOT = Path(__file__).resolve().parent
FOLDER = ROOT.parent / "out" / "section"
RECORDED = ROOT / "data" / "section_answers.jsonl.gz"


def draw(data: Path) -> list[Example]:
    """Records in a fixed random order, each package once."""
    rows = [json.loads(line) for line in gzip.decompress(data.read_bytes()).splitlines()]
    named = list({row["package"]: row for row in rows}.values())
    return [
        Example(
            id=row["package"],
            offset=number,
            at=0.0,
            cluster=row["package"],
            messages=[
                {"role": "system", "content": SECTION},
                {"role": "user", "content": f"{row['package']}: {row['synopsis']}"},
            ],
            answer=json.dumps({"section": row["section"]}),
        )
        for number, row in enumerate(random.Random(7).sample(named, LEARNT + ANSWERED))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent.parent / "shared" / "data" / "packages.jsonl.gz")
    examples = draw(parser.parse_args().data)
    learnt, asked = examples[:LEARNT], examples[LEARNT:]
    base = find("SmolLM2-135M-Instruct", FOLDER).folder
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [render(tokenizer, e.messages, e.answer) for e in learnt]
    artefact, merged = FOLDER / "artefact", FOLDER / "merged"
    if not artefact.exists():
        trained = train(base, rows, FOLDER / "train", Settings(learning_rate=8e-4), tokenizer=tokenizer, progress=show)
        print(f"trained in {trained.seconds:.0f} s, last loss {trained.losses[-1]:.3f}", flush=True)
        merge(base, FOLDER / "train" / "adapter", merged, probe=rows[0].prompt + rows[0].completion)
        staging = FOLDER / "artefact.tmp"
        staging.mkdir(exist_ok=True)
        to_onnx(merged, staging, quantization="int8", log=FOLDER / "export.log")
        staging.rename(artefact)
    most = max(len(tokenizer(e.answer)["input_ids"]) for e in examples) + 2
    report = evaluate(
        GenAIGenerator(artefact).generate, asked, partial(score, "json_fields"), max_new_tokens=most, progress=show
    )
    neighbours = Neighbours.of([e.messages for e in learnt])
    recorded: list[dict[str, Any]] = [
        {
            "package": example.id,
            "section": json.loads(example.answer)["section"],
            "said": outcome.text,
            "score": outcome.value,
            "whole": outcome.whole,
            "prefix": outcome.prefix,
            "novelty": round(neighbours.novelty(example.messages), 6),
        }
        for example, outcome in zip(asked, report.outcomes, strict=True)
    ]
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in recorded)
    write_atomic(RECORDED, gzip.compress(lines, 9, mtime=0))
    print(f"agreement {report.agreement:.4f} on {report.n} in {report.seconds:.0f} s; wrote {RECORDED.name}")


def show(phase: str, done: int, total: int, left: float | None) -> None:
    """One line in fifty steps."""
    if done % 50 == 0:
        print(f"{phase} {done}/{total}, {left if left is None else round(left)} s left", flush=True)


if __name__ == "__main__":
    main()
