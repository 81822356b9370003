"""Training and evaluation on a CUDA device, against the same on the CPU, with a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from training_runs import right_of_100

from exporters.models import merge
from retrainer.data.render import Row
from retrainer.evaluation.generate import TorchGenerator
from retrainer.train import checkpoint
from retrainer.train.chat import Settings, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.train,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SETTINGS = Settings(learning_rate=5e-3, epochs=2)


def test_bf16_on_cuda_learns_as_fp32_on_the_cpu_does(
    tiny_base: Path, tokenizer: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = train(tiny_base, rows, tmp_path / "cuda", SETTINGS, tokenizer=tokenizer)
    assert cuda.device == "cuda"
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        cpu = train(tiny_base, rows, tmp_path / "cpu", SETTINGS, tokenizer=tokenizer)
    assert cpu.device == "cpu"
    assert cuda.losses[0] == pytest.approx(cpu.losses[0], rel=0.02)
    assert cuda.losses[:10] == pytest.approx(cpu.losses[:10], rel=0.1)
    assert sum(cuda.losses[-5:]) / 5 < 0.05 * cuda.losses[0]

    merge(tiny_base, tmp_path / "cuda" / "adapter", tmp_path / "merged", probe=rows[0].prompt + rows[0].completion)
    assert right_of_100(tmp_path / "merged") >= 97


def test_what_is_drawn_after_a_resumption_is_what_would_have_been_drawn(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2, device="cuda")).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "saved.safetensors", model, optimizer, {})
    drawn = torch.rand(4, device="cuda")
    assert not torch.equal(torch.rand(4, device="cuda"), drawn)
    checkpoint.load(tmp_path / "saved.safetensors", model, optimizer)
    assert torch.equal(torch.rand(4, device="cuda"), drawn)


def test_a_model_answers_on_cuda_as_on_the_cpu(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [tiny_model.messages(n) for n in range(5000, 5100)]
    on_cuda = TorchGenerator(tiny_base, rows=16).generate(prompts, max_new_tokens=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = TorchGenerator(tiny_base, rows=16).generate(prompts, max_new_tokens=6)
    assert sum(a == b for a, b in zip(on_cuda, on_cpu, strict=True)) >= 98  # a tie may fall to the other side
