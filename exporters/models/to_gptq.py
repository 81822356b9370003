"""A dense Hugging Face folder becomes 4 bits by GPTQ: what rounding a weight loses, those after it make up for, by the
calibration's second moments (Frantar et al. 2022, arXiv:2210.17323).

Columns are rounded in the order of their importance, but a group's weights stay neighbours ("static" activation order),
so that the result is plain groups, and in the layout that AWQ's is in.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.models.four_bits import four_bits


def to_gptq(model: Path, out: Path, *, samples: Sequence[Sequence[int]], log: Path, group: int | None = None) -> None:
    """Quantize the folder `model` into the folder `out`; see `to_awq`. Raises ExportFailed."""
    four_bits(model, out, "gptq", samples=samples, log=log, group=group)


def modifiers(scheme: dict[str, Any]) -> list[Any]:
    """llm-compressor's recipe."""
    from llmcompressor.modifiers.gptq import GPTQModifier  # noqa: PLC0415 - heavy

    return [GPTQModifier(**scheme, actorder="static")]
