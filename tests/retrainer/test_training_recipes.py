"""QLoRA and full fine-tuning really learn; presets; packing; what every architecture's loss is."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import right_of_100

from exporters.models import merge
from retrainer.data.render import Row
from retrainer.errors import BaseModelError
from retrainer.train import presets
from retrainer.train.batches import IGNORED, collate, collate_packed, completion_logits
from retrainer.train.chat import Settings, prepare, train
from router.policy_student import RetrainPolicy

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

SETTINGS = Settings(learning_rate=5e-3, checkpoint_steps=3, checkpoint_seconds=1e9)


def test_qlora_learns_over_four_bits_and_is_merged_into_the_whole_base(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    settings = Settings(learning_rate=5e-3, epochs=2, method="qlora")
    trained = train(tiny_base, rows[32:], tmp_path, settings, tokenizer=tokenizer, watched=rows[:32])
    assert sum(trained.losses[-5:]) / 5 < 0.05 * trained.losses[0]
    probe = rows[0].prompt + rows[0].completion
    assert merge(tiny_base, tmp_path / "adapter", tmp_path / "merged", probe=probe).max_difference < 1e-3
    merged, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", tiny_base))
    assert torch.equal(merged["lm_head.weight"], base["lm_head.weight"])
    assert all(value.dtype == torch.float32 for value in merged.values())
    assert right_of_100(tmp_path / "merged") >= 95


def test_over_four_bits_the_gradient_is_that_over_the_same_weights_unpacked_also_after_a_look_at_the_loss(
    tiny_base: Path, tokenizer: Any, rows: list[Row]
) -> None:
    """bitsandbytes packs a CPU's weights anew when it is told that training is over, and then passes no gradient."""
    from bitsandbytes.functional import dequantize_4bit

    from retrainer.train.step import Stepper

    packed = prepare(tiny_base, rows, Settings(method="qlora"), tokenizer=tokenizer)
    plain = prepare(tiny_base, rows, Settings(), tokenizer=tokenizer)
    base, other = packed.model.get_base_model(), plain.model.get_base_model()
    quantized = {n: m for n, m in base.named_modules() if n.endswith("base_layer")}
    assert len(quantized) == 14
    assert all(m.weight.quant_state.nested and m.weight.quant_type == "nf4" for m in quantized.values())
    for name, module in quantized.items():
        other.get_submodule(name).weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state)
    gradients = []
    for training in (packed, plain):
        torch.manual_seed(1)
        for name, weight in training.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)

        def loss_of(numbers: list[int], of: Any = training) -> tuple[torch.Tensor, int]:
            return of._loss([rows[i] for i in numbers])  # type: ignore[no-any-return]

        stepper = Stepper(training.model, loss_of, lambda _: 1.0, 0.0, 0.0, 1.0)
        stepper.mean_loss(loss_of, [[0, 1, 2, 3]], lambda _: 1.0)
        stepper._in_parts([4, 5, 6, 7])
        gradients.append({n: w.grad for n, w in training.model.named_parameters() if w.grad is not None})
    assert len(gradients[0]) == 28
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=2e-3, atol=1e-4)


def test_all_weights_learn(tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path) -> None:
    settings = Settings(learning_rate=5e-3, epochs=2, method="full")
    train(tiny_base, rows, tmp_path, settings, tokenizer=tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    assert right_of_100(tmp_path / "model") >= 97
    after, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", tiny_base))
    assert {name for name in before if torch.equal(before[name], after[name])} == set()


@pytest.mark.parametrize(
    ("rank", "alpha", "rate"), [(8, 16, 5.7e-4), (16, 32, 4e-4), (64, 128, 2e-4), (128, 256, 1.4e-4)]
)
def test_the_rank_chooses_alpha_and_rate(rank: int, alpha: int, rate: float) -> None:
    policy = RetrainPolicy(lora_rank=rank)
    assert presets.alpha(policy) == alpha
    assert presets.learning_rate(policy, "lora") == pytest.approx(rate, rel=0.02)
    assert presets.learning_rate(policy, "full") == pytest.approx(4e-5)
    assert presets.learning_rate(RetrainPolicy(learning_rate=1e-3), "full") == 1e-3
    assert presets.alpha(RetrainPolicy(lora_rank=rank, lora_alpha=7)) == 7


def test_adapters_sit_on_the_named_layers_alone_and_unknown_names_are_refused(
    tiny_base: Path, tokenizer: Any, rows: list[Row]
) -> None:
    named = prepare(tiny_base, rows, Settings(targets=("q_proj", "v_proj")), tokenizer=tokenizer).model
    adapted = {n.split(".lora_")[0].split(".")[-1] for n, w in named.named_parameters() if w.requires_grad}
    assert adapted == {"q_proj", "v_proj"}
    with pytest.raises(BaseModelError, match=r"retrain\.lora_targets.*wqkv"):
        prepare(tiny_base, rows, Settings(targets=("wqkv",)), tokenizer=tokenizer)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"head_dim": 8, "sliding_window": 12},
    "phi3": {"sliding_window": 12},
    "gemma2": {"head_dim": 8, "sliding_window": 12, "query_pre_attn_scalar": 8},
    "smollm3": {},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_packed_or_behind_a_shared_prefix_the_loss_is_that_of_each_example_alone(kind: str) -> None:
    """On every architecture of the presets: masks, sliding windows, softcapped logits; and with the same gradient."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        kind,
        vocab_size=128,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
        **shape,
        **ARCHITECTURES[kind],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    draw = random.Random(1)

    def some(least: int, most: int) -> list[int]:
        return [draw.randrange(3, 128) for _ in range(draw.randrange(least, most))]

    start = some(10, 11)
    rows = [Row([*start, *some(1, 20)], [*some(1, 9), 2]) for _ in range(9)]
    total = sum(len(row.completion) for row in rows)
    alone = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
        alone = alone + torch.nn.functional.cross_entropy(logits, torch.tensor(row.completion), reduction="sum") / total
    alone.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    for batch in (
        collate(rows, pad=0, device="cpu"),
        collate_packed(rows, pad=0, width=64, device="cpu"),
        collate_packed(rows, pad=0, width=1, device="cpu"),
    ):
        model.zero_grad()
        labels = batch.labels[batch.labels != IGNORED]
        found = torch.nn.functional.cross_entropy(completion_logits(model, batch), labels)
        found.backward()
        assert found.item() == pytest.approx(alone.item(), rel=1e-5)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-5)


def test_packing_fills_rows_and_leaves_no_example_out(rows: list[Row]) -> None:
    batch = collate_packed(rows[:64], pad=2, width=512, device="cpu")
    used = sum(len(r.prompt) + len(r.completion) - 1 for r in rows[:64])
    assert batch.ids.shape[0] == -(-used // 512)  # as few rows as there can be
    assert batch.ids.shape[1] <= 512
    assert batch.positions is not None
    assert int((batch.labels != IGNORED).sum()) == sum(len(r.completion) for r in rows[:64])
    assert int((batch.positions == 0).sum()) >= 64


def test_packed_and_checkpointed_trainings_end_where_the_plain_one_does(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "packed": {"width": 512},
        "checkpointed": {"gradient_checkpointing": True},
    }
    losses = {}
    for name, change in changes.items():
        settings = Settings(learning_rate=5e-3, **change)
        losses[name] = train(tiny_base, rows[:96], tmp_path / name, settings, tokenizer=tokenizer).losses
    assert losses["packed"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["checkpointed"] == pytest.approx(losses["plain"], rel=1e-3)
