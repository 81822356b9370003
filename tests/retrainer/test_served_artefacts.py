"""A student that knows the task, as each engine is served it: what is written, and that it still knows."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiny_model
from distil_jobs import job
from retrainer_fakes import example

from exporters.models import CLOSED, VLLM, ExportFailed
from exporters.models.harmless import refuse
from retrainer.errors import CycleError
from retrainer.job import Job
from retrainer.recipes import RECIPES, SERVED
from retrainer.recipes.causal import Causal
from retrainer.serving import Serving

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]

ASKED = range(5000, 5040)


@pytest.fixture
def make(teacher: Path, tiny_base: Path, tmp_path: Path) -> Any:
    """A recipe whose training leaves the student that knows the task."""

    def made(runtime: str, *, held_out: int = 30, **retrain: Any) -> tuple[Causal, Job]:
        one = job(tmp_path, tiny_base, "full", examples=[example(n) for n in range(64)], retrain=retrain,
                  validation=[example(n) for n in range(900, 900 + held_out)])  # fmt: skip
        one.serving = Serving(runtime=runtime)
        recipe = Causal(one, lambda _, merged: {"merged": shutil.copytree(teacher, merged).name})
        recipe.train()
        (tmp_path / "artefact").mkdir()
        return recipe, one

    return made


def right(generator: Any) -> int:
    found = generator.generate([tiny_model.messages(n) for n in ASKED], max_new_tokens=12)
    assert all(len(a.logprobs) == a.tokens and max(a.logprobs) <= 0.0 for a in found)
    return sum(a.text == tiny_model.answer(tiny_model.question(n)) for n, a in zip(ASKED, found, strict=True))


@pytest.mark.parametrize(("how", "told"), [(None, "bfloat16"), ("gptq", "GPTQ int4, groups of 32, by llm-compressor")])
def test_vllm_gets_a_hugging_face_folder(make: Any, tmp_path: Path, how: str | None, told: str) -> None:
    recipe, made = make("vllm", quantization=how)
    facts = recipe.export(tmp_path / "artefact")
    assert (recipe.runtime, facts["quantization"], facts["quantizer"]) == (VLLM, how or "none", told)
    assert facts["parity"]["kl"] < 0.2
    assert facts["parity"]["top1"] > 0.9
    files = {f.name for f in (tmp_path / "artefact").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files
    for file in (tmp_path / "artefact").iterdir():
        refuse(file, file.name)
    config = json.loads((tmp_path / "artefact" / "config.json").read_text())
    assert config.get("quantization_config", {}).get("quant_method") == (None if how is None else "awq")
    served = recipe.exported(tmp_path / "artefact")
    assert right(served) >= 38
    assert served.length('{"colour": "red"}') == len(made.tokenizer.encode('{"colour": "red"}'))
    if how is not None:
        kept = made.folder / how / "model.safetensors"
        before = kept.stat().st_mtime_ns
        assert recipe.export(tmp_path / "artefact") == facts
        assert kept.stat().st_mtime_ns == before, "an export that was killed does not quantize again"


def test_the_onnx_engine_gets_the_same_four_bits(make: Any, tmp_path: Path) -> None:
    recipe, _ = make("onnxruntime", quantization="awq")
    facts = recipe.export(tmp_path / "artefact")
    assert (facts["quantization"], facts["quantizer"]) == ("awq", "AWQ int4, groups of 32, by llm-compressor")
    assert facts["parity"]["top1"] > 0.9
    assert right(recipe.exported(tmp_path / "artefact")) >= 38


@pytest.mark.timeout(900)  # two are quantized, of which one alone takes half a minute
@pytest.mark.parametrize("runtime", ["vllm", "onnxruntime"])
def test_of_awq_and_gptq_the_one_that_loses_less_is_served(
    make: Any, tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, made = make(runtime, quantization="w4a16")
    facts = recipe.export(tmp_path / "artefact")
    losses = {method: near["kl"] for method, near in facts["parity_by"].items()}
    assert list(losses) == ["awq", "gptq"]
    assert len(set(losses.values())) == 2
    best, other = sorted(losses, key=losses.__getitem__)
    assert facts["quantization"] == best
    assert facts["quantizer"] == f"{best.upper()} int4, groups of 32, by llm-compressor"
    assert facts["parity"] == facts["parity_by"][best]
    assert {f.name for f in made.folder.glob(f"{other}*")} == set()
    assert (made.folder / best).is_dir()
    assert right(recipe.exported(tmp_path / "artefact")) >= 38
    monkeypatch.setattr("exporters.models.four_bits.PROGRAM", ("false",))  # an export that was killed goes on
    assert recipe.export(tmp_path / "artefact") == facts


def test_where_nothing_is_held_out_an_export_is_compared_on_what_was_learnt_from(make: Any, tmp_path: Path) -> None:
    recipe, made = make("vllm", held_out=0)
    assert recipe.export(tmp_path / "artefact")["parity"]["of"] == "training"
    made.data = msgspec.structs.replace(made.data, validation=[example(n, text="long " * 900) for n in range(900, 904)])
    assert recipe.export(tmp_path / "artefact")["parity"]["of"] == "training", "none is short enough"
    made.data = msgspec.structs.replace(made.data, validation=[example(n) for n in range(900, 903)])
    near = recipe.export(tmp_path / "artefact")["parity"]
    assert (near["of"], near["answers"]) == ("held-out", 3)


@pytest.mark.timeout(900)  # torch writes a graph of MiniLM
def test_an_encoder_is_compared_on_what_it_learnt_from_where_nothing_is_held_out(
    tiny_base: Path, tmp_path: Path
) -> None:
    made = job(tmp_path, tiny_base, "encoder", examples=[example(n) for n in range(40)],
               retrain={"closed": {"epochs": 0}})  # fmt: skip
    recipe = RECIPES["encoder"](made)
    recipe.prepare()
    recipe.train()
    (tmp_path / "artefact").mkdir()
    near = recipe.export(tmp_path / "artefact")["parity"]
    assert (near["of"], near["answers"]) == ("training", 40)


def test_an_export_that_is_not_its_source_is_refused(make: Any, tiny_base: Path, tmp_path: Path) -> None:
    recipe, made = make("vllm", quantization="awq")
    recipe._merged = tiny_base  # quantized is one that knows nothing
    recipe._write("awq", tmp_path / "artefact")
    recipe._merged = made.folder / "merged"
    with pytest.raises(
        ExportFailed, match=r"not its source: .* \(on \d+ tokens of 30 held-out answers; retrain.parity"
    ):
        recipe.export(tmp_path / "artefact")


def test_drafts_change_no_answer_and_no_log_probability(teacher: Path) -> None:
    from retrainer.evaluation.generate import TorchGenerator

    generator = TorchGenerator(teacher)
    prompts = [tiny_model.messages(n) for n in ASKED[:12]]
    plain = generator.generate(prompts, max_new_tokens=12)
    drafted = generator.generate(prompts, max_new_tokens=12, drafts=[a.text for a in plain[:8]] + ["{wrong}"] * 4)
    for one, other in zip(plain, drafted, strict=True):
        assert (one.text, one.tokens) == (other.text, other.tokens)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    kept = [said.drafted for said in drafted]
    assert all(kept[:8])
    assert not any(kept[8:])


def test_a_server_that_has_the_base_gets_the_adapter_alone(tiny_base: Path, tmp_path: Path) -> None:
    one = job(tmp_path, tiny_base, "lora", validation=[example(n) for n in range(900, 910)], retrain={"epochs": 1})
    one.serving, one.max_steps = Serving(runtime="vllm", adapters=True), 4
    recipe = RECIPES["lora"](one)
    recipe.train()
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    facts = recipe.export(artefact)
    assert {f.name for f in artefact.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert facts["quantizer"] == "LoRA adapter"
    assert facts["parity"]["kl"] < 1e-5
    prompts = [tiny_model.messages(n) for n in range(4)]
    by_adapter, by_merged = SERVED[VLLM](artefact), recipe.trained()
    for some in zip(*(g.generate(prompts, max_new_tokens=4) for g in (by_adapter, by_merged)), strict=True):
        assert some[0].text == some[1].text
    shutil.move(tiny_base, tmp_path / "away")
    try:
        with pytest.raises(ExportFailed, match="which is not on this machine"):
            SERVED[VLLM](artefact)
    finally:
        shutil.move(tmp_path / "away", tiny_base)


def test_recipes_without_an_adapter_are_told_so(make: Any, tmp_path: Path) -> None:
    recipe, made = make("vllm")
    made.serving = Serving(runtime="vllm", adapters=True)
    with pytest.raises(ExportFailed, match=r"the recipe full leaves no adapter, .* take lora or qlora"):
        recipe.export(tmp_path / "artefact")


def test_quantization_aware_training_refuses_what_it_can_not_round_like(tiny_base: Path, tmp_path: Path) -> None:
    made = job(tmp_path, tiny_base, "quantized", retrain={"quantization": "awq"})
    with pytest.raises(CycleError, match="as int8 or int4 does, not as awq"):
        RECIPES["quantized"](made).train()


def test_closed_students_are_the_onnx_engines(tiny_base: Path, tmp_path: Path) -> None:
    made = job(tmp_path, tiny_base, "linear")
    assert RECIPES["linear"](made).runtime == CLOSED
