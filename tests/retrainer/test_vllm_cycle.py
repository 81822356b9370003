"""A whole cycle of a route whose engine runs vLLM, which is not asked for it."""

from pathlib import Path
from typing import Any

import pytest
from test_retrainer_cycle import Bench

from exporters.models import VLLM, Store
from retrainer.recipes import SERVED
from router.config import Config

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


def test_a_cycle_for_vllm_registers_a_hugging_face_folder(tiny_base: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state", tiny_base)
    told: dict[str, Any] = bench.config.model_dump()
    told["engines"]["local"] = {"runtime": "vllm"}
    bench.config = Config.model_validate(told)
    result = bench.run("v")
    assert result.outcome == "registered", result.verdict
    assert "P95 of an answer: nothing was timed" in result.verdict.not_checked
    store = Store(bench.config.artefacts)
    manifest = store.verify("v")
    assert (manifest.runtime, manifest.quantization) == (VLLM, "none")
    assert {"config.json", "model.safetensors", "tokenizer.json", "confidence.json"} <= set(manifest.files)
    assert manifest.report["confidence"]["uncalibrated"]["n"] > 40  # with signals of its log probabilities
    served = SERVED[VLLM](store.path("v"))
    for golden in manifest.golden:
        (found,) = served.generate([golden["messages"]], max_new_tokens=golden["max_tokens"])
        assert (found.text, len(golden["logprobs"])) == (golden["answer"], found.tokens)
    assert result.reports["quantized"].agreement > 0.95
