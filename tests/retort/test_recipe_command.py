"""`retort recipe`: every preset is tried dry, and what can't be trained says why."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from retort.cli import main
from retrainer.data.render import Row
from retrainer.errors import BaseModelError
from retrainer.recipes.estimate import Load, Shape, activations, estimate
from retrainer.recipes.template import check_template
from router import needs_similarity, parse

RECIPES = Path(__file__).parents[2] / "examples/recipes"

# Published sizes, in billions of weights.
SIZES = {
    "smollm3-3b": 3.08,
    "llama-3.1-8b": 8.03,
    "llama-3.3-70b": 70.55,
    "qwen3-0.6b": 0.596,
    "qwen3-8b": 8.19,
    "phi-3.5-mini": 3.82,
    "phi-4-mini": 3.84,
    "mistral-7b": 7.25,
    "gemma-2-9b": 9.24,
}


# By case: its base's size, and what its dry run must have taken over.
CASES = {
    "case-voice": ("voice", 3.82, {"method": "full", "width": 2048, "epochs": 5.0}),
    "case-support": ("support", 7.25, {"method": "qlora", "rank": 128, "alpha": 256}),
    "case-rag": ("rag", 8.03, {"method": "qlora", "rank": 64, "batch_size": 64}),
}


def recipe(file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["recipe", str(file), "--json", *options])
    told = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(told.out) if told.out else told.err


def test_every_preset_is_listed() -> None:
    assert {file.stem for file in RECIPES.glob("*.yaml")} == {*SIZES, *CASES}


@pytest.mark.parametrize("name", CASES)
def test_a_case_builds_the_whole_training_and_scores_free_text_by_its_meaning(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # a dry run asks nobody
    route, size, wanted = CASES[name]
    _, reports = recipe(RECIPES / f"{name}.yaml", capsys)
    assert reports[route]["shape"]["weights"] / 1e9 == pytest.approx(size, abs=0.006)
    assert wanted.items() <= reports[route]["settings"].items()
    config = parse((RECIPES / f"{name}.yaml").read_text(), {"OPENAI_API_KEY": "sk-none"})
    policy = config.routes[route]
    assert needs_similarity(policy.quality.score)
    assert policy.learns_tools == (name == "case-support")
    assert policy.quality.judge is not None
    assert policy.retrain.gate.teacher_route == policy.quality.judge.route


@pytest.mark.parametrize("name", SIZES)
def test_a_preset_builds_the_whole_training(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    code, reports = recipe(RECIPES / f"{name}.yaml", capsys)
    report = reports["support"]
    shape, made = report["shape"], report["estimate"]
    assert shape["weights"] / 1e9 == pytest.approx(SIZES[name], abs=0.006)
    assert code == (1 if report["lacks"] else 0)
    method = report["settings"]["method"]
    if method == "full":
        assert shape["trainable"] == shape["weights"]
        assert made["gradients"] + made["optimizer"] == 3 * made["weights"]
    else:
        assert {"o_proj", "down_proj"} <= set(report["targets"])
        assert 0.002 < shape["trainable"] / shape["weights"] < 0.03
    if method == "qlora":
        assert made["weights"] < 0.3 * 4 * shape["weights"]
    known = {"gemma": "no system message", "qwen3": "a thinking block"}
    wanted = [why for family, why in known.items() if name.startswith(family)]
    assert len(report["notes"]) == len(wanted)
    assert all(why in note for why, note in zip(wanted, report["notes"], strict=True))


def test_what_is_too_large_for_this_machine_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    file = RECIPES / "llama-3.3-70b.yaml"
    code, reports = recipe(file, capsys)
    assert code == 1
    assert any(
        "merging takes 564 GB of main memory, and this machine has" in lack for lack in reports["support"]["lacks"]
    )
    with pytest.raises(SystemExit, match="1"):
        main(["recipe", str(file)])
    assert "TOO LARGE merging takes 564 GB" in capsys.readouterr().out


def test_a_recipe_that_trains_all_weights_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(tiny_model.build(tmp_path / "base"))
    for name, how in (("hidden", "all weights"), ("logits", "r 16, alpha 32 on ")):
        file = config(tmp_path, base)
        made = json.loads(file.read_text())
        made["routes"]["r"]["student"]["recipe"] = name
        made["routes"]["r"]["retrain"] = {"distil": {"teacher": base}}
        file.write_text(json.dumps(made))
        with pytest.raises(SystemExit, match="0"):
            main(["recipe", str(file)])
        assert f"recipe    {name}, {how}" in capsys.readouterr().out


def config(folder: Path, base: str, **retrain: Any) -> Path:
    made = {
        "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "distillation_allowed": True}},
        "engines": {"local": {}},
        "routes": {"r": {"teachers": ["up/m"], "student": {"base": base}, "retrain": retrain}},
        "state": str(folder / "state"),
    }
    file = folder / "retort.yaml"
    file.write_text(json.dumps(made))  # JSON is YAML
    return file


def test_a_base_on_this_machine_is_read_from_its_folder_and_wrong_recipes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model.build(tmp_path / "tiny")
    code, reports = recipe(config(tmp_path, str(base)), capsys)
    assert (code, reports["r"]["here"], reports["r"]["architecture"]) == (0, True, "LlamaForCausalLM")
    code, said = recipe(config(tmp_path, str(base), lora_targets=["wqkv"]), capsys)
    assert code == 2
    assert "retrain.lora_targets" in said
    code, said = recipe(config(tmp_path, "nobody/none-1b"), capsys)
    assert code == 2
    assert "hf download nobody/none-1b" in said
    (base / "config.json").write_text('{"model_type": "strange", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}')
    code, said = recipe(config(tmp_path, str(base)), capsys)
    assert code == 2
    assert "transformers has no model for its config.json" in said


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "no chat template"),
        ("{{ nothing.there }}", "can't render a question"),
        ("{{ messages | length }}", "leaves the user's words out"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ 'x' if add_generation_prompt }}", ""),
        (
            "{% for m in messages %}{{ '<think> no </think>' if m.role == 'assistant' }}{{ m.content }}{% endfor %}",
            "end a",
        ),
        (
            "{% for m in messages %}{{ '- ' if m.role == 'assistant' }}{{ m.content }}{% endfor %}",
            "where the answer begins",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ '>' if not add_generation_prompt }}x", ""),
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}",
            "system message out",
        ),
    ],
)
def test_a_chat_template_that_a_student_cannot_learn_by_is_refused(template: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "</s>"}))
    if why:
        with pytest.raises(BaseModelError, match=why):
            check_template(tmp_path)
    else:
        assert "writes more before an answer" in check_template(tmp_path)[0]


def test_the_formula_of_a_trainings_memory_is_what_autograd_keeps() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from retrainer.train.batches import collate_packed
    from retrainer.train.chat import Settings, adapted, loss

    config = AutoConfig.for_model(
        "llama",
        vocab_size=2000,
        hidden_size=256,
        intermediate_size=700,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    model = adapted(AutoModelForCausalLM.from_config(config), Settings())
    draw = random.Random(0)
    tokens = [[draw.randrange(3, 2000) for _ in range(120)] for _ in range(4)]
    batch = collate_packed([Row(t[:100], t[100:]) for t in tokens], pad=0, width=1, device="cpu")
    own = {w.untyped_storage().data_ptr() for w in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = loss(model, batch)
        shape = Shape(
            weights=0,
            quantizable=0,
            trainable=0,
            layers=4,
            hidden=256,
            mlp=700,
            queries=256,
            values=128,
            vocabulary=2000,
        )
        said = activations(shape, 4, Load(prompt=100, completion=20), checkpointing=False)
        assert sum(kept.values()) == pytest.approx(said, rel=0.15)
    assert found.requires_grad


@pytest.mark.parametrize(
    ("recipe_name", "method"), [("lora", "lora"), ("logits", "lora"), ("pruned", "full"), ("qlora", "qlora")]
)
def test_every_recipe_that_trains_a_base_is_tried_dry_on_the_one_that_comes_with_a_package(
    recipe_name: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, reports = recipe(packaged(tmp_path, recipe_name), capsys)
    report = reports["support"]
    assert (code, report["settings"]["method"]) == (0, method)
    assert report["shape"]["weights"] / 1e9 == pytest.approx(0.135, abs=0.001)
    assert any("is estimated as" in note for note in report["notes"]) == (recipe_name != method)


@pytest.mark.parametrize("name", ["linear", "encoder", "auto"])
def test_a_recipe_that_follows_from_the_answers_is_named_with_what_tries_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = recipe(packaged(tmp_path, name), capsys)
    assert code == 2
    assert "`retort evaluate` tries it" in told


def packaged(folder: Path, name: str) -> Path:
    """A configuration with SmolLM2 as its base, and nothing converted yet."""
    file = folder / "retort.yaml"
    file.write_text(
        f"""
state: {folder / "state"}
upstreams: {{up: {{base_url: "http://127.0.0.1:9/v1", distillation_allowed: true}}}}
engines: {{local: {{}}}}
routes: {{support: {{teachers: [up/big], student: {{base: SmolLM2-135M-Instruct, engine: local, recipe: {name}}}}}}}
"""
    )
    return file


def test_time_and_memory_follow_the_formula() -> None:
    shape = Shape(
        weights=10**9,
        quantizable=8 * 10**8,
        trainable=10**7,
        layers=2,
        hidden=4,
        mlp=8,
        queries=4,
        values=2,
        vocabulary=16,
    )
    load = Load(examples=1000, prompt=90, completion=10, batch_size=2, epochs=2)
    lora = estimate(shape, load, "lora", checkpointing=False, cuda=False, flops=1e12)
    assert lora.seconds == 4 * 1e9 * 100 * 1000 * 2 / 0.5e12
    assert (lora.weights, lora.adapters, lora.gradients, lora.optimizer) == (4 * 10**9, 4 * 10**7, 4 * 10**7, 8 * 10**7)
    assert lora.activations_least == 4 * 100 * 2 * (8 * 4 + 3 * 8 + 2 * 4 + 2 * 2) + 12 * 10 * 16
    assert lora.whole - lora.least == lora.activations_least
    qlora = estimate(shape, load, "qlora", checkpointing=True, cuda=True, flops=1e12)
    assert qlora.weights == round(4.127 / 8 * 8e8) + 2 * 2 * 10**8
    assert qlora.seconds == lora.seconds * 1.5
    full = estimate(shape, load, "full", checkpointing=False, cuda=False, flops=1e12)
    assert (full.adapters, full.merging, lora.merging) == (0, 4 * 10**9, 8 * 10**9)
