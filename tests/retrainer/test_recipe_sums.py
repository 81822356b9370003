"""What a recipe's losses add up to: an example's weight is how often it counts, and a batch is the sum of its parts."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from distil_jobs import job, trained, with_logprobs
from retrainer_fakes import example
from scipy.sparse import csr_matrix

from exporters.models.encoder_onnx import packaged_encoder
from retrainer.data.curate import Example
from retrainer.progress import silent
from retrainer.recipes.linear import regression
from retrainer.recipes.preference import lost_pairs
from retrainer.train import encoder
from retrainer.train.batches import order
from retrainer.train.loop import LoopSettings

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

# How many epochs each recipe's last stage needs to see everything once; and what it needs beside.
RECIPES: dict[str, tuple[int, dict[str, Any]]] = {
    "lora": (1, {}),
    "qlora": (1, {}),
    "full": (1, {}),
    "logits": (1, {}),
    "topk": (1, {}),
    "hidden": (1, {}),
    "attention": (1, {}),
    "on_policy": (2, {"on_policy": 0.0}),
    "preference": (5, {}),
    "cascade": (1, {"assistants": ("TEACHER",)}),
    "pruned": (1, {}),
    "layerwise": (1, {"rounds": 1}),
    "self": (1, {}),
    "ensemble": (1, {"teachers": ("TEACHER", "TEACHER")}),
    "adapters": (1, {}),
    "uncertain": (1, {}),
    "quantized": (2, {}),
}


def said(number: int, tokenizer: Any, recipe: str) -> Example:
    """An example with an answer of its own length (an ensemble would outvote it), alternatives for some of its tokens,
    and another answer that lost."""
    answer = None if recipe == "ensemble" else f'{{"colour": "{"red " * number}"}}'
    told = with_logprobs(example(number, answer=answer), tokenizer, odds=0.3)
    return msgspec.structs.replace(told, logprobs=told.logprobs if number % 2 else (), rejected="no")


def added_up(folder: Path, base: Path, teacher: Path, recipe: str, examples: list[Example], **settings: Any) -> float:
    """The sum of the losses of the recipe's last stage over one epoch, at a rate that moves next to nothing."""
    folder.mkdir()
    epochs, distil = RECIPES[recipe]
    named = {k: tuple(str(teacher) for _ in v) if isinstance(v, tuple) else v for k, v in distil.items()}
    retrain = {"learning_rate": 1e-6, "epochs": epochs, "batch_size": 4, **settings}
    made = job(folder, base, recipe, examples=examples, teacher=str(teacher), retrain=retrain, **named)
    facts = trained(made)[1]
    rows = [pair.chosen for pair in lost_pairs(made)] if recipe == "preference" else made.rows
    batches = order(rows, size=retrain["batch_size"], seed=0, epoch=0)
    by_answer = recipe in ("on_policy", "preference")
    units = [len(some) if by_answer else sum(len(rows[i].completion) for i in some) for some in batches]
    assert len(facts["losses"]) == len(units)
    return sum(n * loss for n, loss in zip(units, facts["losses"], strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_doubled_weight_is_a_doubled_example_and_a_batch_the_sum_of_its_parts_packed_or_not(
    recipe: str, teacher: Path, tiny_base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    some = [said(number, tokenizer, recipe) for number in range(1, 4)]
    doubled = [msgspec.structs.replace(some[0], weight=2.0), *some[1:]]
    by_weight = added_up(tmp_path / "weight", tiny_base, teacher, recipe, doubled)
    twice = added_up(tmp_path / "twice", tiny_base, teacher, recipe, [some[0], *some])
    parts = added_up(tmp_path / "parts", tiny_base, teacher, recipe, doubled, batch_size=1)
    packed = added_up(tmp_path / "packed", tiny_base, teacher, recipe, doubled, packing=True)
    assert by_weight == pytest.approx(twice, rel=2e-3)
    assert [parts, packed] == pytest.approx([by_weight, by_weight], rel=2e-3)


def test_a_doubled_weight_is_a_doubled_example_for_the_regression() -> None:
    draw = np.random.default_rng(0)
    table, chosen = draw.normal(size=(12, 5)), np.arange(12) % 3
    fits = [
        regression(csr_matrix(table), chosen, np.array([2.0] + [1.0] * 11), strength=10.0),
        regression(csr_matrix(np.vstack([table[:1], table])), np.array([0, *chosen]), np.ones(13), strength=10.0),
        regression(csr_matrix(table), chosen, np.ones(12), strength=10.0),
    ]
    by_weight, twice, once = (np.vstack([weights, bias]) for _, weights, bias, _ in fits)
    assert np.abs(by_weight - twice).max() < 0.02 < np.abs(once - twice).max()
    assert fits[0][3] == pytest.approx(fits[1][3], rel=1e-2)
    assert fits[2][3] != pytest.approx(fits[1][3], rel=1e-2)


def test_a_doubled_weight_is_a_doubled_example_for_the_encoder(tmp_path: Path) -> None:
    texts = ["a red car", "a blue house by the sea", "green", "a red shoe"]
    chosen = [(0,), (1,), (2,), (0,)]
    fields = [slice(0, 3)]
    heads, sums = [], []
    cases: dict[str, tuple[list[int], list[float]]] = {
        "weight": ([0, 1, 2, 3], [1.0, 2.0, 1.0, 1.0]),
        "twice": ([0, 1, 1, 2, 3], [1.0] * 5),
    }
    for name, (numbers, weights) in cases.items():
        torch.manual_seed(0)
        model = encoder.ClosedEncoder(packaged_encoder(), fields)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        rows = encoder.encode(packaged_encoder(), [texts[n] for n in numbers], weights)
        known = [chosen[n] for n in numbers]
        encoder.begin(model, rows, known, progress=silent)
        heads.append(model.head.weight.detach().clone())
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.weight[0] += 0.1
        trained = encoder.train(
            model, rows, known, tmp_path / name, LoopSettings(learning_rate=1e-9, max_steps=1), progress=silent
        )
        sums.append(trained.losses[0] * len(rows))
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-2, atol=1e-2)
    assert sums[0] == pytest.approx(sums[1], rel=1e-3)
