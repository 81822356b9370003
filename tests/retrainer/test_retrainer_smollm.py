"""The real SmolLM2: converted from the package that carries it, exported, and asked a question."""

from pathlib import Path

import pytest

from exporters.models import GenAIGenerator, to_onnx
from retrainer.base_models import find
from retrainer.errors import BaseModelError

pytestmark = pytest.mark.smollm

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]


@pytest.mark.timeout(240)
def test_smollm2_is_converted_once_exported_to_int8_and_answers_sanely(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from retrainer.data.render import prompt_ids

    base = find("SmolLM2-135M-Instruct", tmp_path)
    stamp = (base.folder / "model.safetensors").stat().st_mtime_ns
    assert find("SmolLM2-135M-Instruct", tmp_path) == base
    assert (base.folder / "model.safetensors").stat().st_mtime_ns == stamp

    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    text = 'ünïcode 1234 {"a": [1, 2]}\n\tx  — 日本語 😀'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2024")] == ["2", "0", "2", "4"]

    out = tmp_path / "int8"
    out.mkdir()
    to_onnx(base.folder, out, quantization="int8", log=tmp_path / "export.log")
    generator = GenAIGenerator(out)
    assert generator.encode(QUESTION) == prompt_ids(tokenizer, QUESTION)
    (answer,) = generator.generate([QUESTION], max_new_tokens=32)
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"

    config = base.folder / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(BaseModelError, match=r"config\.json is missing or has changed"):
        find("SmolLM2-135M-Instruct", tmp_path)
