"""Pruning in width, of architectures with other norms, embeddings and heads than Llama's."""

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from distil_jobs import job, trained
from retrainer_fakes import example
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen3Config,
    SmolLM3Config,
)

from exporters.models import GenAIGenerator, to_onnx
from retrainer.errors import CycleError
from retrainer.evaluation.generate import TorchGenerator
from retrainer.train.surgery import (
    check_shapes,
    check_written,
    ffn_importance,
    hidden_importance,
    keep_ffn,
    keep_hidden,
    keep_layers,
)

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

IDS = torch.arange(3, 40)[None]


def built(architecture: Any, **changes: Any) -> Any:
    """Of two random layers, with norms that are not all the same."""
    small = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "head_dim": 16,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
             "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.08}  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(architecture(**{**small, **changes})).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.add_(torch.rand_like(weight) / 4)
    return model


def read(model: Any) -> Any:
    return model(input_ids=IDS)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = read(model).logits
    return found


@pytest.mark.parametrize(
    "architecture", [GemmaConfig, Gemma2Config, Gemma3TextConfig, Qwen3Config, Olmo2Config, CohereConfig]
)
def test_a_narrower_model_is_the_same_when_it_is_loaded_again_and_pruning_nothing_changes_nothing(
    architecture: Any, tmp_path: Path
) -> None:
    model = built(architecture)
    before = logits(model)
    keep_ffn(model, [torch.arange(192)] * 2)
    keep_hidden(model, torch.arange(128))
    torch.testing.assert_close(logits(model), before)
    keep_layers(model, [1])
    keep_ffn(model, [active.topk(64).indices.sort().values for active in ffn_importance(model, read)])
    keep_hidden(model, hidden_importance(model, read).topk(64).indices.sort().values)
    check_shapes(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (again.config.hidden_size, again.config.intermediate_size, again.config.num_hidden_layers) == (64, 64, 1)
    assert torch.equal(logits(again), logits(model))


def test_layers_that_stay_rotate_as_they_did(tmp_path: Path) -> None:
    """Every fourth of SmolLM3's layers has no rotary embedding; its configuration says which."""
    model = built(SmolLM3Config, num_hidden_layers=8)
    assert model.config.no_rope_layers == [1, 1, 1, 0, 1, 1, 1, 0]
    keep_layers(model, [0, 1, 3, 7])
    assert model.config.no_rope_layers == [1, 1, 0, 0]
    model.save_pretrained(tmp_path)
    check_written(model, tmp_path)
    model.config.no_rope_layers = [1, 1, 1, 0]  # as a cut of its first layers would leave it
    model.config.save_pretrained(tmp_path)
    with pytest.raises(CycleError, match="SmolLM3ForCausalLM can't be pruned: loaded again its logits differ by"):
        check_written(model, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", [GemmaConfig, Gemma2Config])
def test_an_embedding_that_grows_with_the_width_says_the_same_in_the_channels_that_stay(
    architecture: Any, tied: bool
) -> None:
    model = built(architecture, tie_word_embeddings=tied)
    kept = torch.arange(0, 128, 2)

    def told() -> tuple[torch.Tensor, torch.Tensor]:
        """What each token brings, and what each channel behind the last norm says of each token: both [tokens, H]."""
        body = model.get_decoder()
        gain = body.norm(torch.ones(body.norm.weight.shape))
        return body.embed_tokens(IDS[0]).detach(), (model.lm_head.weight * gain).detach()

    embedded, said = told()
    keep_hidden(model, kept)
    narrower, head = told()
    torch.testing.assert_close(narrower, embedded[:, kept])
    torch.testing.assert_close(head, said[:, kept])


@pytest.mark.parametrize(("architecture", "lacks"), [(Phi3Config, "mlp.gate_proj"), (MixtralConfig, "mlp.down_proj")])
def test_what_can_not_be_narrowed_is_refused_by_name(architecture: Any, lacks: str) -> None:
    model = built(architecture)
    with pytest.raises(CycleError, match=rf"DecoderLayer has no {lacks}"):
        keep_ffn(model, [active.topk(64).indices for active in ffn_importance(model, read)])


def test_a_cut_that_transformers_would_not_build_is_refused_before_it_is_written() -> None:
    model = built(Gemma2Config)
    check_shapes(model)
    model.model.layers[1].pre_feedforward_layernorm.weight = torch.nn.Parameter(torch.zeros(64))
    with pytest.raises(CycleError, match=r"layers\.1\.pre_feedforward_layernorm.* \(64,\).* builds \(128,\).*keep_hid"):
        check_shapes(model)


def test_a_student_cut_out_of_a_gemma_is_trained_and_served(tiny_base: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "gemma"
    built(Gemma2Config, sliding_window=16).save_pretrained(teacher)  # prompts are longer
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(teacher)
    made = job(
        tmp_path,
        teacher,
        "pruned",
        examples=[example(n) for n in range(48)],
        teacher=str(teacher),
        keep_ffn=0.5,
        keep_hidden=0.5,
    )
    facts = trained(made)[1]
    assert facts["losses"][-1] < facts["losses"][0]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.hidden_size == 64
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    to_onnx(tmp_path / "merged", artefact, quantization="int8", log=tmp_path / "export.log")
    prompts = [tiny_model.messages(n) for n in range(20)]
    served, exact = (
        one.generate(prompts, max_new_tokens=1)
        for one in (GenAIGenerator(artefact, threads=1), TorchGenerator(tmp_path / "merged"))
    )
    assert sum(a.text == b.text for a, b in zip(served, exact, strict=True)) >= 17
