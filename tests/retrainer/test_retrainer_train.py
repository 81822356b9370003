"""Training, on a tiny model that is really trained."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import tiny_model
import torch
from safetensors.torch import load_file
from training_runs import right_of_100
from transformers import AutoModelForCausalLM

from exporters.models import ExportFailed, merge
from retrainer.data.render import Row, common_prefix
from retrainer.errors import CycleError, OutOfMemory, TrainingDiverged
from retrainer.evaluation.generate import TorchGenerator, longest_answer
from retrainer.train.batches import IGNORED, collate, order
from retrainer.train.chat import Settings, adapted, train
from retrainer.train.chat import loss as batch_loss

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

SETTINGS = Settings(learning_rate=5e-3, checkpoint_steps=3, checkpoint_seconds=1e9)


class Killed(BaseException):
    """Stands for SIGKILL between two steps."""


def kill_at(step: int) -> Any:
    def progress(phase: str, done: int, total: int, seconds_left: float | None) -> None:
        if done == step and seconds_left is not None:
            raise Killed

    return progress


def test_a_resumed_training_equals_an_uninterrupted_one(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    whole = train(tiny_base, rows[:160], tmp_path / "whole", SETTINGS, tokenizer=tokenizer)
    with pytest.raises(Killed):
        train(tiny_base, rows[:160], tmp_path / "cut", SETTINGS, tokenizer=tokenizer, progress=kill_at(5))
    resumed: list[int] = []
    cut = train(
        tiny_base,
        rows[:160],
        tmp_path / "cut",
        SETTINGS,
        tokenizer=tokenizer,
        progress=lambda phase, done, total, left: resumed.append(done),
    )
    assert resumed[0] == 3  # the checkpoint before the kill, not the beginning
    one, two = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert whole.losses == cut.losses
    assert (whole.steps, whole.tokens) == (cut.steps, cut.tokens)


def test_training_moves_the_weights_lowers_the_loss_and_teaches_the_task(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    settings = Settings(learning_rate=5e-3, epochs=2)
    trained = train(tiny_base, rows, tmp_path, settings, tokenizer=tokenizer)
    assert trained.steps == 50
    assert sum(trained.losses[-5:]) / 5 < 0.05 * trained.losses[0]
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(bool(v.abs().max() > 0) for k, v in adapter.items() if "lora_B" in k)  # B starts at zero

    probe = rows[0].prompt + rows[0].completion
    report = merge(tiny_base, tmp_path / "adapter", tmp_path / "merged", probe=probe)
    assert report.changed == report.adapted == 14
    assert report.max_difference < 1e-3

    assert right_of_100(tmp_path / "merged") >= 97


def test_sharing_the_prefix_changes_no_gradient(tiny_base: Path, tokenizer: Any, rows: list[Row]) -> None:
    """The same batch once with the common prefix shared, once as whole rows through the model's own forward."""
    torch.manual_seed(0)
    model = adapted(AutoModelForCausalLM.from_pretrained(tiny_base), SETTINGS)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    batch = collate(rows[:8], pad=tokenizer.pad_token_id, device="cpu")
    assert batch.prefix.shape[1] > 10
    shared = batch_loss(model, batch)
    shared.backward()
    with_sharing = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()

    width = max(len(r.prompt) + len(r.completion) for r in rows[:8])
    ids = torch.full((8, width), tokenizer.pad_token_id)
    labels = torch.full((8, width), IGNORED)
    for i, row in enumerate(rows[:8]):
        whole = row.prompt + row.completion
        ids[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(row.prompt) : len(whole)] = torch.tensor(row.completion)
    plain = model(input_ids=ids, labels=labels).loss * sum(len(r.completion) for r in rows[:8])
    plain.backward()
    assert shared.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(with_sharing[name], weight.grad, rtol=1e-3, atol=1e-3)


def test_an_examples_weight_is_how_often_its_tokens_count(tiny_base: Path, tokenizer: Any, rows: list[Row]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    wrapped = SimpleNamespace(get_base_model=lambda: model)
    pad = tokenizer.pad_token_id

    def loss(weights: Sequence[float]) -> float:
        weighed = [Row(r.prompt, r.completion, w) for r, w in zip(rows, weights, strict=False)]
        return float(batch_loss(wrapped, collate(weighed, pad=pad, device="cpu")).item())

    with torch.inference_mode():
        first, second = (float(batch_loss(wrapped, collate([row], pad=pad, device="cpu")).item()) for row in rows[:2])
        assert loss([1.5, 0.5]) == pytest.approx(1.5 * first + 0.5 * second, rel=1e-5)


def test_only_the_completion_bears_a_loss(tokenizer: Any, rows: list[Row]) -> None:
    batch = collate(rows[:4], pad=tokenizer.pad_token_id, device="cpu")
    for i, row in enumerate(rows[:4]):
        assert batch.labels[i][batch.labels[i] != IGNORED].tolist() == row.completion
    assert batch.tokens == batch.prefix.numel() + batch.ids.numel()


def test_rows_end_with_the_end_token_and_share_the_template(tokenizer: Any, rows: list[Row]) -> None:
    assert all(r.completion[-1] == tokenizer.eos_token_id for r in rows)
    shared = common_prefix([r.prompt for r in rows])
    assert "Name the colour" in tokenizer.decode(rows[0].prompt[:shared])
    assert common_prefix([[1, 2], [1, 2]]) == 1
    assert common_prefix([[1], [2]]) == 0


def test_an_epoch_visits_every_example_once_in_batches_of_like_length(rows: list[Row]) -> None:
    plan = order(rows, size=16, seed=1, epoch=0)
    assert sorted(i for batch in plan for i in batch) == list(range(400))
    assert plan == order(rows, size=16, seed=1, epoch=0)
    assert plan != order(rows, size=16, seed=1, epoch=1)
    lengths = [[len(rows[i].prompt + rows[i].completion) for i in batch] for batch in plan]
    padded = sum(max(batch) * len(batch) for batch in lengths)
    assert padded / sum(map(sum, lengths)) < 1.03


def test_a_checkpoint_of_another_training_is_refused(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    train(tiny_base, rows[:32], tmp_path, SETTINGS, tokenizer=tokenizer)
    with pytest.raises(CycleError, match="no checkpoint of this training"):
        train(tiny_base, rows[:32], tmp_path, Settings(rank=4), tokenizer=tokenizer)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(CycleError, match="remove it to train anew"):
        train(tiny_base, rows[:32], tmp_path, SETTINGS, tokenizer=tokenizer)


def test_a_training_that_diverges_stops_with_a_hint(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match=r"lower retrain\.learning_rate"):
        train(tiny_base, rows[:160], tmp_path, Settings(learning_rate=1e30, clip=1e30), tokenizer=tokenizer)


def test_an_adapter_that_changes_nothing_is_not_merged(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> None:
    train(tiny_base, rows[:32], tmp_path, Settings(learning_rate=0.0), tokenizer=tokenizer)
    with pytest.raises(ExportFailed, match="changes no weight"):
        merge(tiny_base, tmp_path / "adapter", tmp_path / "merged", probe=rows[0].prompt)
    assert not (tmp_path / "merged").exists()


def test_batched_answers_equal_the_models_own_greedy_generation(tiny_base: Path, tokenizer: Any) -> None:
    """Unequal prompts, a shared prefix and left padding, against transformers' `generate`, one at a time."""
    prompts = [tiny_model.messages(n) for n in range(12)]
    prompts[3] = [{"role": "system", "content": tiny_model.SYSTEM}, {"role": "user", "content": "a red car " * 9}]
    ticks: list[int] = []
    answers = TorchGenerator(tiny_base, rows=5).generate(prompts, max_new_tokens=6, tick=ticks.append)
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    for prompt, found in zip(prompts, answers, strict=True):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.inference_mode():
            for _ in range(6):
                ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        new = ids[0, -6:].tolist()
        stop = new.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in new else 6
        assert found.text == tokenizer.decode(new[:stop], skip_special_tokens=True)
    assert ticks == [5, 10, 12]
    right = [a.text for a in answers]
    for drafts in (right, right[::-1], ["wrong"] * 12):
        told = TorchGenerator(tiny_base, rows=5).generate(prompts, max_new_tokens=6, drafts=drafts)
        assert [msgspec.structs.replace(answer, drafted=False) for answer in told] == answers


def test_batches_that_do_not_fit_into_memory_are_halved(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [tiny_model.messages(n) for n in range(12)]
    whole = TorchGenerator(tiny_base, rows=8).generate(prompts, max_new_tokens=6)
    answer, sizes = TorchGenerator._answer, []

    def scarce(self: TorchGenerator, encoded: Any, most: int) -> Any:
        sizes.append(len(encoded))
        if len(encoded) > room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return answer(self, encoded, most)

    monkeypatch.setattr(TorchGenerator, "_answer", scarce)
    room = 3
    found = TorchGenerator(tiny_base, rows=8).generate(prompts, max_new_tokens=6)
    assert [one.text for one in found] == [one.text for one in whole]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    room = 0
    with pytest.raises(OutOfMemory, match="one example doesn't fit into memory while it is evaluated"):
        TorchGenerator(tiny_base, rows=8).generate(prompts, max_new_tokens=6)


def test_a_batch_has_no_more_logits_than_fit(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, sizes = TorchGenerator(tiny_base), []
    check = generator._check
    monkeypatch.setattr(generator, "_check", lambda rows: sizes.append(len(rows)) or check(rows))  # type: ignore[func-returns-value]
    monkeypatch.setattr("retrainer.evaluation.generate.MOST_LOGITS", 3 * 10 * 512)
    prompts, drafts = [tiny_model.messages(n) for n in range(9)], ["a b c d e f g h i"] * 9
    generator.generate(prompts, max_new_tokens=40, drafts=drafts)
    tokens = generator.length(drafts[0]) + 1
    assert sizes[0] == 30 * 512 // (tokens * generator._model.config.vocab_size)


def test_the_longest_answer_leaves_room_to_tell_rambling_from_stopping(tokenizer: Any) -> None:
    tokens = len(tokenizer.encode('{"colour": "red"}', add_special_tokens=False))
    assert longest_answer(tokenizer, ['{"colour": "red"}', "x"]) == tokens + 1 + 2
