"""An adapter becomes part of its base: one dense, unquantized model that any exporter can read.

Merging goes into the unquantized base only: adding a delta to 4-bit weights would round most of it away.
"""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporters.models.errors import ExportFailed
from exporters.models.whole import staged

# fp32: the adapter's product and the merged weight round differently; measured 2e-4 at most on SmolLM2.
TOLERANCE = 1e-2


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """`changed`: matrices that the adapter moved, of `adapted` that it covers. `max_difference`: greatest absolute
    difference of a logit between base + adapter and the merged model, over the probe."""

    changed: int
    adapted: int
    max_difference: float


def merge(base: Path, adapter: Path, out: Path, *, probe: Sequence[int]) -> Merged:
    """Write base + adapter as a Hugging Face folder `out` (safetensors and the base's tokenizer), atomically.

    `probe`: token ids, at least two, over which the logits of both forms must agree. Raises ExportFailed where they
    don't, or where the adapter changes nothing (then nothing has been learnt).
    """
    import torch  # noqa: PLC0415 - heavy: exporting pays for it, importing the store does not
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.named_parameters() if weight.dim() == 2}
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        adapted = PeftModel.from_pretrained(model, adapter)
    adapted.eval()
    ids = torch.tensor([list(probe)])
    with torch.inference_mode():
        expected = adapted(input_ids=ids).logits
    covered = len({name for name, _ in adapted.named_modules() if name.endswith(".lora_A")})
    merged = adapted.merge_and_unload()
    with torch.inference_mode():
        difference = float((merged(input_ids=ids).logits - expected).abs().max())
    changed = sum(not torch.equal(before[name], weight) for name, weight in merged.named_parameters() if name in before)
    if changed == 0:
        raise ExportFailed(f"{adapter}: the adapter changes no weight of {base}")
    if not difference < TOLERANCE:
        raise ExportFailed(f"the merged model's logits differ from the adapter's by {difference:.2g}")
    write_dense(merged, base, out)
    return Merged(changed=changed, adapted=covered, max_difference=difference)


def write_dense(model: Any, base: Path, out: Path) -> None:
    """Write a model as a Hugging Face folder `out`, with the tokenizer of the folder `base`, atomically."""
    with staged(out) as staging:
        model.save_pretrained(staging, safe_serialization=True)
        copy_tokenizer(base, staging)


def copy_tokenizer(base: Path, out: Path) -> None:
    """Give the folder `out` the tokenizer and the chat template of `base`."""
    for file in base.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab", "merges")):
            shutil.copyfile(file, out / file.name)
