"""Students for the tests with a real vLLM: tiny models and adapters with golden answers that torch recorded, as
artefacts of a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import VLLM, Manifest, Store

QUESTION = [{"role": "user", "content": "1: a red car in the garden"}]
GOLDEN = [{"role": "user", "content": "golden"}]
MOST = 24

Messages = Sequence[dict[str, str]]


class Torch:
    """What torch says of a tiny model, or of an adapter on it."""

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._model = AutoModelForCausalLM.from_pretrained(base)
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, adapter)
        self._model.eval()

    def greedy(self, messages: Messages, most: int = MOST) -> tuple[str, list[float]]:
        """The answer, and the log probabilities of its tokens, the end token's included."""
        import torch

        line = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        prompt, logprobs = len(line), []
        for _ in range(most):
            with torch.no_grad():
                row = torch.log_softmax(self._model(torch.tensor([line])).logits[0, -1].double(), -1)
            line.append(int(row.argmax()))
            logprobs.append(float(row.max()))
            if line[-1] == self._tokenizer.eos_token_id:
                break
        return self._tokenizer.decode(line[prompt:], skip_special_tokens=True), logprobs


def golden(student: Torch, base: Torch | None = None, messages: Messages = GOLDEN) -> list[dict[str, Any]]:
    answer, logprobs = student.greedy(messages)
    other = None if base is None else base.greedy(messages)[0]
    return [
        {"messages": list(messages), "answer": answer, "max_tokens": MOST, "logprobs": logprobs, "base_answer": other}
    ]


def build_adapter(base: Path, out: Path, *, seed: int, rank: int = 8) -> Path:
    """A LoRA adapter that changes what the base says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    return out


def publish(store: Store, name: str, source: Path, entries: list[dict[str, Any]], **fields: Any) -> None:
    """Put a folder's files into the store."""
    staging = store.staging(name)
    for file in source.iterdir():
        (staging / file.name).write_bytes(file.read_bytes())
    manifest = Manifest(
        id=name,
        route="support",
        kind="chat",
        runtime=VLLM,
        base="tiny",
        base_revision="0",
        quantization="none",
        created_at=1.0,
        files={},
        golden=entries,
    )
    store.add(staging, msgspec.structs.replace(manifest, **fields))
