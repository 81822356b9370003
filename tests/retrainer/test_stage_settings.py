"""What a policy says about training holds for every recipe's stages, as it does for the texts' own."""

from pathlib import Path
from typing import Any

import pytest
from distil_jobs import RATE, job, trained, with_logprobs
from retrainer_fakes import example

from retrainer.errors import CycleError
from retrainer.recipes import RECIPES
from retrainer.train.objectives import Step, on_completions
from retrainer.train.sequence import settings
from retrainer.train.stage import Stage, train_stage
from router.policy_student import RetrainPolicy

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("full", [True, False])
def test_a_stage_trains_by_the_settings_of_the_policy(full: bool, tiny_base: Path, tmp_path: Path) -> None:
    retrain = {"learning_rate": RATE, "packing": True, "gradient_checkpointing": True, "validations": 3, "patience": 2}
    examples = [example(n) for n in range(32)]
    made = job(tmp_path, tiny_base, "lora", examples=examples, validation=examples, retrain=retrain)
    stage = Stage(name="texts", start=tiny_base, out=tmp_path / "texts", full=full, share=0.5)
    used = train_stage(made, stage, on_completions(made, Step.hard))["settings"]
    assert (used["width"], used["gradient_checkpointing"], used["looks"], used["patience"]) == (1024, True, 3, 2)
    assert (used["learning_rate"], used["weight_decay"], used["epochs"]) == (RATE, 0.01 if full else 0.0, 0.5)


def test_the_rate_of_all_weights_is_not_that_of_an_adapters_rank() -> None:
    rates = {rank: settings(RetrainPolicy(lora_rank=rank), "full").learning_rate for rank in (8, 16, 64)}
    assert set(rates.values()) == {4e-5}


@pytest.mark.parametrize("recipe", ["logits", "hidden", "attention", "topk", "on_policy", "adapters"])
def test_a_stage_watches_the_loss_of_held_out_examples(
    recipe: str, teacher: Path, tiny_base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    examples = [with_logprobs(example(n), tokenizer, odds=0.1) for n in range(128)]
    retrain = {"epochs": 2, "validations": 2}
    held_out = {"examples": examples[:64], "validation": examples[64:]}
    facts = trained(job(tmp_path, tiny_base, recipe, teacher=str(teacher), retrain=retrain, **held_out))[1]
    (_, first), (_, last) = facts["validation"]
    assert last < first
    assert facts["best_step"] == facts["steps"]
    assert last == pytest.approx(facts["losses"][-1], rel=0.5)  # the loss of what it learns, on others


@pytest.mark.parametrize("recipe", ["hidden", "attention"])
def test_what_happens_inside_is_learnt_with_checkpointed_activations_as_without(
    recipe: str, teacher: Path, tiny_base: Path, tmp_path: Path
) -> None:
    losses = []
    for checkpointing in (False, True):
        retrain = {"gradient_checkpointing": checkpointing}
        examples = [example(n) for n in range(64)]
        folder = tmp_path / str(checkpointing)
        made = job(folder, tiny_base, recipe, examples=examples, teacher=str(teacher), retrain=retrain)
        losses.append(trained(made)[1]["losses"])
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_where_nothing_fits_a_recipe_says_what_to_raise(tiny_base: Path, tmp_path: Path) -> None:
    for recipe in ("lora", "logits", "topk", "preference"):
        made = job(tmp_path / recipe, tiny_base, recipe, teacher=str(tiny_base), retrain={"max_tokens": 9})
        with pytest.raises(CycleError, match=r"none of 192 training examples fits into 9 tokens; raise retrain\.max"):
            RECIPES[recipe](made).train()


def test_an_example_that_is_too_long_is_left_out_with_what_is_told_of_it(
    tiny_base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    long = example(0, answer='{"colour": "' + "red " * 200 + '"}')
    examples = [long, *(with_logprobs(example(n), tokenizer, odds=0.1) for n in range(1, 17))]
    made = job(tmp_path, tiny_base, "topk", examples=examples, retrain={"max_tokens": 128})
    assert trained(made)[1]["with_logprobs"] == 16
    assert [one.id for one in made.learnt] == [one.id for one in examples[1:]]
