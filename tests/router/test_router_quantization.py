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
        assert [how for how in ("none", "int8", "int4", "awq", "gptq") if not unserved(runtime, quantization=how)] == [
            *served
        ]


@pytest.mark.parametrize(
    ("runtime", "recipe", "how", "said"),
    [
        (ONNX, "lora", "none", "none is not served by runtime: onnxruntime; take int8, int4, awq, gptq"),
        (VLLM, "lora", "int4", "int4 is not served by runtime: vllm; take none, awq, gptq"),
        (VLLM, "linear", "awq", "recipe: linear makes students that choose, which only runtime: onnxruntime serves"),
        (VLLM, "auto", "awq", "recipe: auto makes students that choose"),
        (ONNX, "quantized", "gptq", "as int8 or int4 rounds them, and gptq chooses its rounding after training"),
        (VLLM, "quantized", "none", "and none chooses its rounding after training"),
    ],
)
def test_what_no_engine_of_a_runtime_serves_is_told(runtime: str, recipe: str, how: str, said: str) -> None:
    assert said in (unserved(runtime, recipe, quantization=how) or "")


def test_a_configuration_with_dense_weights_for_onnx_is_refused() -> None:
    data = {
        "upstreams": {"o": {"base_url": "http://h/v1", "distillation_allowed": True}},
        "engines": {"local": {}},
        "routes": {"r": {"teachers": ["o/m"], "student": {}, "retrain": {"quantization": "awq"}}},
    }
    assert Config.model_validate(data).routes["r"].retrain.quantization == "awq"
    data["routes"]["r"]["retrain"] = {"quantization": "none"}  # type: ignore[index]
    said = "routes.r: retrain.quantization: none is not served by runtime: onnxruntime; take int8, int4, awq, gptq"
    with pytest.raises(ValueError, match=re.escape(said)):
        Config.model_validate(data)
