"""Pruning and rounding of weights, on the tiny model."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from distil_jobs import job
from retrainer_fakes import example
from transformers import AutoModelForCausalLM

from exporters.models import to_onnx, write_dense
from retrainer.data.render import Row
from retrainer.errors import CycleError
from retrainer.train.batches import IGNORED, collate, collate_packed, completion_logits
from retrainer.train.fake_quant import bake, fake_quantize
from retrainer.train.features import layer_map, mean_of_examples, projections, seen
from retrainer.train.prune import reader
from retrainer.train.surgery import (
    ffn_importance,
    hidden_importance,
    keep_ffn,
    keep_hidden,
    keep_layers,
    layer_importance,
    most_important,
    rounded,
    spread,
)

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def model(tiny_base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_base).eval()


@pytest.fixture
def read(rows: list[Row], tokenizer: Any) -> Any:
    batch = collate(rows[:16], pad=tokenizer.pad_token_id, device="cpu")
    return lambda model: completion_logits(model, batch)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 40)[None]).logits
    return found


def test_pruning_nothing_changes_no_logit(model: Any, tiny_base: Path, tmp_path: Path) -> None:
    before = logits(model)
    keep_layers(model, [0, 1])
    keep_ffn(model, [torch.arange(192)] * 2)
    keep_hidden(model, torch.arange(64))
    assert torch.equal(logits(model), before)
    write_dense(model, tiny_base, tmp_path / "same")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "same")), before)


def test_what_does_nothing_is_what_goes_and_its_going_changes_nothing(model: Any, read: Any) -> None:
    idle = model.model.layers[0]
    for linear in (idle.self_attn.o_proj, idle.mlp.down_proj):
        linear.weight.data.zero_()
    neurons = torch.arange(0, 192, 2)
    model.model.layers[1].mlp.gate_proj.weight.data[neurons] = 0.0
    before = logits(model)
    importance = layer_importance(model, read)
    assert importance[0] == pytest.approx(0.0, abs=1e-6)
    assert most_important(importance, 1) == [1]
    keep_layers(model, [1])
    (active,) = ffn_importance(model, read)
    left = active.topk(96).indices.sort().values
    assert not set(left.tolist()) & set(neurons.tolist())
    keep_ffn(model, [left])
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)


class Hand(torch.nn.Module):
    """Two layers [2] that turn what they get: by 0 and by 90 degrees."""

    class Layer(torch.nn.Module):
        def __init__(self, turned: list[list[float]]) -> None:
            super().__init__()
            self.self_attn, self.mlp = torch.nn.Module(), torch.nn.Module()
            self.mlp.down_proj = torch.nn.Linear(2, 2, bias=False)
            self.turned = torch.tensor(turned)

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            self.mlp.down_proj(hidden_states)
            return hidden_states @ self.turned

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(map(self.Layer, ([[2.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [-1.0, 0.0]])))

    def get_decoder(self) -> Any:
        return self


def test_importance_by_hand_counts_every_token_once() -> None:
    one, three = torch.tensor([[[2.0, -4.0]]]), torch.tensor([[[0.0, 4.0], [0.0, 0.0], [2.0, 0.0]]])

    def read(model: Any) -> None:
        for batch in (one, three):
            hidden = batch
            for layer in model.layers:
                hidden = layer(hidden_states=hidden)

    # 1 - cos: 0 for every token, and 1 for the three that aren't zero
    assert layer_importance(Hand(), read) == [pytest.approx(0.0, abs=1e-6), pytest.approx(3 / 4)]
    first, second = (active.tolist() for active in ffn_importance(Hand(), read))
    assert first == [(2 + 2) / 4, (4 + 4) / 4]
    assert second == [2 * value for value in first]


def test_importance_is_that_of_the_examples_each_by_itself(model: Any, tiny_base: Path, tmp_path: Path) -> None:
    """However long the prefix that they share, and whatever shares a batch."""
    made = job(tmp_path, tiny_base, "pruned", examples=[example(n) for n in range(12)])
    found = ffn_importance(model, reader(made))

    def alone(model: Any) -> None:
        for row in made.rows:
            model(input_ids=torch.tensor([(row.prompt + row.completion)[:-1]]))

    for active, expected in zip(found, ffn_importance(model, alone), strict=True):
        torch.testing.assert_close(active, expected, rtol=1e-4, atol=1e-6)


def test_hidden_channels_that_carry_nothing_go_first(model: Any, read: Any) -> None:
    body = model.model
    for norm in (*(n for la in body.layers for n in (la.input_layernorm, la.post_attention_layernorm)), body.norm):
        norm.weight.data[::2] = 0.0
    kept = hidden_importance(model, read).topk(32).indices.sort().values
    assert kept.tolist() == list(range(1, 64, 2))


def test_layers_are_spread_and_matched_evenly() -> None:
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # DistilBERT's
    assert spread(30, 1) == [0]
    assert layer_map(6, 12) == [1, 3, 5, 7, 9, 11]  # TinyBERT's g(m) = 2m
    assert layer_map(3, 3) == [0, 1, 2]
    assert layer_map(6, 2) == [0, 0, 0, 0, 1, 1]
    assert (rounded(0.75, 1536), rounded(1.0, 100), rounded(0.01, 64)) == (1152, 100, 64)


def test_what_is_seen_and_meant_is_the_examples_own_whether_packed_or_behind_a_prefix(
    rows: list[Row], tokenizer: Any
) -> None:
    some = sorted(rows, key=lambda row: len(row.prompt + row.completion))
    pair = [some[0], some[-1]]
    lengths = [len(row.prompt + row.completion) - 1 for row in pair]
    assert lengths[0] < lengths[1]
    shared = collate(pair, pad=tokenizer.pad_token_id, device="cpu")
    packed = collate_packed(pair, pad=tokenizer.pad_token_id, width=500, device="cpu")
    prefix = shared.prefix.numel()
    assert prefix > 10
    assert (packed.ids.shape, packed.owners[0, [0, -1]].tolist()) == ((1, sum(lengths)), [1, 0])
    # each token's own id, as what is measured of it: the mean over an example's tokens
    means = [sum((row.prompt + row.completion)[:-1]) / length for row, length in zip(pair, lengths, strict=True)]
    parts = [shared.prefix.float(), shared.ids.float()]
    assert mean_of_examples(shared, parts).tolist() == pytest.approx(means)
    assert mean_of_examples(packed, [packed.ids.float()]).tolist() == pytest.approx(means)
    for batch in (shared, packed):
        counts = seen(batch).sum(dim=-1)[batch.labels != IGNORED]
        for i, (row, length) in enumerate(zip(pair, lengths, strict=True)):
            assert counts[batch.owner == i].tolist() == list(range(len(row.prompt), length + 1))


def test_a_projection_begins_as_the_identity() -> None:
    (one,) = projections(1, 2, 3)
    assert one(torch.tensor([5.0, 7.0])).tolist() == [5.0, 7.0, 0.0]


def test_other_architectures_are_refused_by_name() -> None:
    class Odd(torch.nn.Module):
        def get_decoder(self) -> Any:
            return self

    with pytest.raises(CycleError, match="Odd has no decoder layers"):
        layer_importance(Odd(), lambda model: None)


@pytest.mark.parametrize(("quantization", "channels", "differing"), [("int8", 32, 0.0), ("int4", 64, 0.02)])
def test_a_pruned_model_loads_and_exports_and_its_rounded_weights_are_those_that_the_export_serves(
    quantization: Any, channels: int, differing: float, model: Any, read: Any, tiny_base: Path, tmp_path: Path
) -> None:
    """k-quant searches its grid anew, and finds another for a few groups."""
    keep_layers(model, [1])
    keep_ffn(model, [ffn_importance(model, read)[0].topk(128).indices.sort().values])
    keep_hidden(model, hidden_importance(model, read).topk(channels).indices.sort().values)
    exact = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    fake_quantize(model, quantization)
    model.model.layers[0].mlp.up_proj.weight.sum().backward()
    gradient = model.model.layers[0].mlp.up_proj.parametrizations.weight.original.grad
    assert torch.equal(gradient, torch.ones_like(gradient))  # straight through
    bake(model)
    assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, exact)

    write_dense(model, tiny_base, tmp_path / "dense")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    config = again.config
    assert (config.num_hidden_layers, config.intermediate_size, config.hidden_size) == (1, 128, channels)
    assert torch.equal(logits(again), logits(model))
    (tmp_path / "artefact").mkdir()
    to_onnx(tmp_path / "dense", tmp_path / "artefact", quantization=quantization, log=tmp_path / "log")  # runs it
    served = weights_of(tmp_path / "artefact" / "model.onnx")
    layer = model.model.layers[0]
    parts = {"attn.o_proj": layer.self_attn.o_proj}
    parts |= {f"mlp.{name}": getattr(layer.mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}
    for name, part in parts.items():
        apart = np.abs(served[f"layers.0.{name}"] - part.weight.detach().numpy()) > 2e-4
        assert apart.mean() <= differing


def weights_of(graph: Path) -> dict[str, Any]:
    """The weights [out, in] that MatMulNBits nodes compute with, by what is between "/model/" and "/MatMul"."""
    model = onnx.load(graph)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            bits, size = (next(a.i for a in node.attribute if a.name == n) for n in ("bits", "N"))
            packed, scale = stored[node.input[1]], stored[node.input[2]].reshape(size, -1, 1)
            levels = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1)
            levels = levels.reshape(size, scale.shape[1], -1).astype(np.float32)
            zero: Any = float(1 << (bits - 1))
            if len(node.input) > 3 and node.input[3]:
                zero = stored[node.input[3]].reshape(size, -1)
                if bits == 4:
                    zero = np.stack([zero & 15, zero >> 4], axis=-1).reshape(size, -1)[:, : scale.shape[1]]
                zero = zero.astype(np.float32)[..., None]
            name = node.name.removeprefix("/model/").split("/MatMul")[0].replace("/", ".")
            found[name] = ((levels - zero) * scale).reshape(size, -1)
    return found
