"""Engines in the configuration: what is nonsense is refused with what would be right."""

import pytest
from pydantic import ValidationError

from router.config_engines import EngineSettings, VllmSettings


def test_an_engine_is_onnxruntime_by_default_and_vllm_has_its_own_environment() -> None:
    assert EngineSettings().runtime == "onnxruntime"
    engine = EngineSettings.model_validate({"runtime": "vllm"})
    assert (engine.vllm.python, engine.vllm.max_num_seqs, engine.vllm.urls) == (".vllm/bin/python", 16, ())


def test_a_found_servers_address_loses_its_slash() -> None:
    assert VllmSettings.model_validate({"urls": ["http://a:1/", "http://b:1"]}).urls == ("http://a:1", "http://b:1")


def test_arguments_that_are_not_ours_are_taken() -> None:
    given = ["--dtype", "bfloat16", "--max-lora-rank=128", "--gpu-memory-utilization", "0.4", "--model-impl", "vllm"]
    assert VllmSettings.model_validate({"arguments": given}).arguments == tuple(given)


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"runtime": "vllm", "kv_cache_gb": 1.5}, "kv_cache_gb: 1.5 can't be given to vLLM, which takes whole GB"),
        ({"vllm": {"max_num_seqs": 4}}, "vllm: is for an engine with runtime: vllm; this one's is onnxruntime"),
        ({"runtime": "tgi"}, "'onnxruntime' or 'vllm'"),
        ({"runtime": "vllm", "vllm": {"max_num_seqs": 0}}, "greater than 0"),
        ({"runtime": "vllm", "vllm": {"urls": ["vllm-0:8000"]}}, "for example http://vllm-0:8000"),
        ({"runtime": "vllm", "vllm": {"urls": ["http://vllm-0:8000/v1"]}}, "without /v1"),
        ({"runtime": "vllm", "vllm": {"urls": ["http://a:1", "http://a:1/"]}}, "twice"),
        ({"runtime": "vllm", "vllm": {"urls": ["http://a:1"], "tensor_parallel": 2}}, "tensor_parallel can only be"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--max-num-seqs=4"]}}, "set max_num_seqs"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--max_num_seqs", "4"]}}, "set max_num_seqs"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--max-num-s", "4"]}}, "set max_num_seqs"),
        ({"runtime": "vllm", "vllm": {"arguments": ["-tp", "2"]}}, "set tensor_parallel"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--hos", "0.0.0.0"]}}, "servers listen on loopback"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--config", "vllm.yaml"]}}, "a file would set what is set here"),
        ({"load_timeout": "0s"}, "greater than 0"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--enable-sleep-mode"]}}, "waking up corrupts weights"),
        ({"runtime": "vllm", "vllm": {"arguments": ["--structured-outputs-config.backend", "xgrammar"]}}, "guidance"),
        ({"runtime": "vllm", "vllm": {"arguments": ["dtype=float32"]}}, "is no argument"),
    ],
)
def test_nonsense_is_refused(engine: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        EngineSettings.model_validate(engine)
    assert says in str(refused.value)
