"""Training on CUDA (bf16 autocast): does it teach the real SmolLM2 the sample task as well as fp32 on a CPU does?

    scripts/bench train_cuda

Trains on 1,200 records with the demo's settings, merges, and lets the base and the student answer 1,000 others.
Writes benchmarks/results/train_cuda.json.
"""

import random
import tempfile
from functools import partial
from pathlib import Path

import results_file
import torch
from transformers import AutoTokenizer

from exporters.models import merge
from retort.demo.settings import POLICY
from retort.sample.records import packages
from retrainer.base_models import find
from retrainer.data.curate import Example
from retrainer.data.render import render
from retrainer.evaluation.evaluate import Report, evaluate
from retrainer.evaluation.generate import TorchGenerator, longest_answer
from retrainer.train.chat import Settings, train
from router.scores import score

EXAMPLES, HELD_OUT = 1200, 1000


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("train_cuda: this machine has no CUDA device")
    examples = draw()
    learnt, judged = examples[:EXAMPLES], examples[EXAMPLES:]
    with tempfile.TemporaryDirectory() as state:
        base = find("SmolLM2-135M-Instruct", state).folder
        tokenizer = AutoTokenizer.from_pretrained(base)
        rows = [render(tokenizer, e.messages, e.answer) for e in learnt]
        settings = Settings(learning_rate=POLICY["retrain"]["learning_rate"])
        adapter, merged = Path(state) / "train" / "adapter", Path(state) / "merged"
        trained = train(base, rows, adapter.parent, settings, tokenizer=tokenizer, progress=show)
        memory = torch.cuda.max_memory_allocated()
        merge(base, adapter, merged, probe=rows[0].prompt + rows[0].completion)
        most = longest_answer(tokenizer, [e.answer for e in examples])
        untrained, student = judge(base, judged, most), judge(merged, judged, most)
    figures = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "train": {
            "examples": len(learnt),
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "examples_per_second": round(len(learnt) / trained.seconds, 1),
            "tokens_per_second": round(trained.tokens / trained.seconds),
            "first_loss": trained.losses[0],
            "last_losses": sum(trained.losses[-10:]) / 10,
            "most_memory_gib": round(memory / 2**30, 2),
        },
        "base": untrained.summary(),
        "student": student.summary(),
    }
    goals = [
        results_file.goal("held-out records", student.n, ">=", HELD_OUT),
        results_file.goal("agreement of the untrained base", untrained.agreement, "<=", 0.05),
        results_file.goal("agreement of the student", student.agreement, ">=", 0.95),
        results_file.goal("valid JSON", student.valid_json or 0.0, ">=", 0.99),
    ]
    results_file.write("train_cuda", figures, goals)


def draw() -> list[Example]:
    """Records of the sample task, in a fixed random order: no name is drawn twice."""
    drawn = random.Random(0).sample(packages(), EXAMPLES + HELD_OUT)
    return [
        Example(
            id=record.package,
            offset=number,
            at=0.0,
            cluster=record.package,
            messages=record.messages,
            answer=record.answer,
        )
        for number, record in enumerate(drawn)
    ]


def judge(folder: Path, examples: list[Example], most: int) -> Report:
    """What a model answers, scored as a cycle scores it."""
    generate = TorchGenerator(folder).generate
    report = evaluate(generate, examples, partial(score, "json_fields"), max_new_tokens=most)
    print(f"{folder.name}: {report.agreement:.4f} in {report.seconds:.1f} s")
    return report


def show(phase: str, done: int, total: int, left: float | None) -> None:
    """One line in ten steps."""
    if done % 10 == 0:
        print(f"{phase} {done}/{total}, {left if left is None else round(left)} s left", flush=True)


if __name__ == "__main__":
    main()
