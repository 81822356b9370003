"""A dense Hugging Face folder becomes 4 bits by AWQ: what the calibration shows to matter is scaled up before rounding
(Lin et al. 2023, arXiv:2306.00978)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.models.four_bits import four_bits

# Ratios that are tried for each scale, of the paper's 20: half of them take half of the time on a CPU.
GRID = 10


def to_awq(model: Path, out: Path, *, samples: Sequence[Sequence[int]], log: Path, group: int | None = None) -> None:
    """Quantize the folder `model` into the folder `out` (`exporters.models.awq_layout`), atomically.

    `samples`: token ids of conversations as the model will see them. `group`: by default as the model's shapes allow,
    see `group_for`. What llm-compressor prints goes to the file `log`. Raises ExportFailed.
    """
    four_bits(model, out, "awq", samples=samples, log=log, group=group)


def modifiers(scheme: dict[str, Any]) -> list[Any]:
    """llm-compressor's recipe."""
    from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: PLC0415 - heavy
    from llmcompressor.modifiers.transform.awq import AWQModifier  # noqa: PLC0415

    return [AWQModifier(n_grid=GRID), QuantizationModifier(**scheme)]
