"""How weights are rounded, and what an engine of each runtime can serve."""

import re

import pytest

from router.config import Config
from router.policy_student import SERVED_AS, RetrainPolicy, StudentPolicy

ONNX, VLLM = SERVED_AS


def unserved(runtime: str, recipe: str = "lora", **retrain: str) -> str | None:
    return RetrainPolicy.model_validate(retrain).unserved(StudentPolicy.model_validate({"recipe": recipe}), runtime)


def test_each_runtime_has_its_default_and_serves_what_it_can() -> None:
    assert (ONNX, VLLM) == ("onnxruntime", "vllm")
    plain = RetrainPolicy()
    assert (plain.quantized_for(ONNX), plain.quantized_for(VLLM)) == ("int8", "none")
    for runtime, served in SERVED_AS.items():
        assert unserved(runtime) is None
        ways = ("none", "int8", "int4", "awq", "gptq", "w4a16")
        assert [how for how in ways if not unserved(runtime, quantization=how)] == [*served]


@pytest.mark.parametrize(
    ("runtime", "recipe", "how", "said"),
    [
        (ONNX, "lora", "none", "none is not served by runtime: onnxruntime; take int8, int4, awq, gptq, w4a16"),
        (VLLM, "lora", "int4", "int4 is not served by runtime: vllm; take none, awq, gptq, w4a16"),
        (VLLM, "linear", "awq", "recipe: linear makes students that choose, which only runtime: onnxruntime serves"),
        (VLLM, "auto", "awq", "recipe: auto makes students that choose"),
        (ONNX, "quantized", "gptq", "as int8 or int4 rounds them, and gptq chooses its rounding after training"),
        (ONNX, "quantized", "w4a16", "as int8 or int4 rounds them, and w4a16 chooses its rounding after training"),
        (VLLM, "quantized", "none", "and none chooses its rounding after training"),
    ],
)
def test_what_no_engine_of_a_runtime_serves_is_told(runtime: str, recipe: str, how: str, said: str) -> None:
    assert said in (unserved(runtime, recipe, quantization=how) or "")


def test_how_far_an_export_may_be_from_its_source_is_by_its_bits_or_as_told() -> None:
    plain = RetrainPolicy().parity
    assert plain.bounds("int8") == plain.bounds("none") == (0.05, 0.9)
    assert plain.bounds("int4") == plain.bounds("awq") == plain.bounds("gptq") == (0.35, 0.7)
    told = RetrainPolicy.model_validate({"parity": {"max_kl": 2.0}}).parity
    assert (told.bounds("int8"), told.bounds("gptq")) == ((2.0, 0.9), (2.0, 0.7))
    assert RetrainPolicy.model_validate({"parity": {"min_top1": 0.0}}).parity.bounds("int8") == (0.05, 0.0)


def test_a_configuration_with_dense_weights_for_onnx_is_refused() -> None:
    data = {
        "upstreams": {"o": {"base_url": "http://h/v1", "distillation_allowed": True}},
        "engines": {"local": {}},
        "routes": {"r": {"teachers": ["o/m"], "student": {}, "retrain": {"quantization": "awq"}}},
    }
    assert Config.model_validate(data).routes["r"].retrain.quantization == "awq"
    data["engines"] = {"local": {"runtime": "vllm", "vllm": {"adapters_on": "/base"}}}
    for change, said in (
        ({}, "retrain.quantization: an adapter is served as it is, on adapters_on; leave awq out"),
        ({"student": {"recipe": "full"}}, "full leaves no adapter, all that an engine with adapters_on serves"),
    ):
        changed = data["routes"]["r"] | change  # type: ignore[index]
        with pytest.raises(ValueError, match=re.escape(said)):
            Config.model_validate(data | {"routes": {"r": changed}})
    plain = data["routes"]["r"] | {"retrain": {}}  # type: ignore[index]
    assert Config.model_validate(data | {"routes": {"r": plain}})
    data["engines"] = {"local": {}}
    data["routes"]["r"]["retrain"] = {"quantization": "none"}  # type: ignore[index]
    said = (
        "routes.r: retrain.quantization: none is not served by runtime: onnxruntime; take int8, int4, awq, gptq, w4a16"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        Config.model_validate(data)
