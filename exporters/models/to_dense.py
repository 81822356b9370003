"""A dense Hugging Face folder as vLLM serves it: the same model in bfloat16, half the bytes of what was trained."""

from pathlib import Path

from exporters.models.hf_folder import Weights, read_config, write_folder
from exporters.models.whole import staged


def to_dense(model: Path, out: Path) -> None:
    """Write the folder `model` in bfloat16 as the folder `out`, atomically. Raises ExportFailed."""
    import torch  # noqa: PLC0415 - heavy: only an export pays for it

    config, weights = read_config(model), Weights(model)
    rounded = (
        (name, t.to(torch.bfloat16) if t.is_floating_point() else t) for name in weights for t in (weights[name],)
    )
    with staged(out) as staging:
        write_folder(staging, rounded, config | {"dtype": "bfloat16"}, source=model, tokenizer=model)
