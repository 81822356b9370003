"""What AWQ and GPTQ share: 4 bits by llm-compressor, calibrated on a route's own conversations, in the one layout.

It runs in a process of its own (`exporters.models.compress`): llm-compressor keeps a session and loggers that are
global, and hooks in the model.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from exporters.models.apart import run_apart
from exporters.models.awq_layout import repack
from exporters.models.errors import ExportFailed

Method = Literal["awq", "gptq"]
PROGRAM = (sys.executable, "-W", "ignore", "-m", "exporters.models.compress")
TIMEOUT_SECONDS = 6 * 3600.0

# Groups cost (16 + 4) / G bits a weight. Under a billion weights a group of 32 is worth it (SmolLM2's perplexity is
# 37.5, and 53.6 at 64); above, 128 is what everybody ships, and what kernels are fastest at.
GROUPS = (128, 64, 32)
SMALL, SMALLS_GROUP = 1_000_000_000, 32


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told. `samples`: token ids."""

    method: Method
    model: str
    out: str
    group: int
    samples: list[list[int]]


def four_bits(
    model: Path, out: Path, method: Method, *, samples: Sequence[Sequence[int]], log: Path, group: int | None
) -> None:
    """Quantize the dense Hugging Face folder `model` into the folder `out`, atomically; see `to_awq` and `to_gptq`."""
    if not any(samples):
        raise ExportFailed(f"{method} needs conversations to calibrate on, and got none")
    group = group or group_for(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".four-bits-", dir=out.parent) as folder:
        told = [list(tokens) for tokens in samples if tokens]
        order = Order(method=method, model=str(model), out=folder, group=group, samples=told)
        name = f"quantizing by {method}"
        run_apart(PROGRAM, log=log, name=name, timeout=TIMEOUT_SECONDS, order=msgspec.json.encode(order))
        repack(Path(folder), out, tokenizer=model)


def group_for(model: Path) -> int:
    """How many neighbouring weights share a scale: 32 in a model of less than a billion weights, else the largest of
    128, 64 and 32 that divides the input of every layer. Raises ExportFailed where none does."""
    widths, weights = _shapes(model)
    for group in GROUPS:
        if (weights >= SMALL or group <= SMALLS_GROUP) and all(width % group == 0 for width in widths):
            return group
    raise ExportFailed(
        f"{model}: 4 bits in groups need layers whose inputs are multiples of 32, and it has {sorted(widths)}; "
        "retrain.quantization: int8 takes any"
    )


def _shapes(model: Path) -> tuple[set[int], int]:
    """The input widths of the linear layers but the head, and how many weights there are; nothing is loaded."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{model} is no Hugging Face model folder: {error}") from error
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    head = made.get_output_embeddings()
    linear = [m for m in made.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return {m.in_features for m in linear}, sum(w.numel() for w in made.parameters())
