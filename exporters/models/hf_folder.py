"""Hugging Face folders of safetensors, read and written tensor by tensor."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporters.models.errors import ExportFailed
from exporters.models.merge import copy_tokenizer

SHARD_BYTES = 4 << 30


class Weights:
    """A folder's tensors by name, each read when it is asked for. Raises ExportFailed."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open  # noqa: PLC0415 - with torch, heavy

        files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._folder = folder
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if not self._files:
            raise ExportFailed(f"{folder} holds no .safetensors file")

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Any:
        if name not in self._files:
            raise ExportFailed(f"{self._folder} lacks the tensor {name}")
        return self._files[name].get_tensor(name)


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises ExportFailed."""
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise ExportFailed(f"{folder} is no Hugging Face model folder: {error}") from error


def write_folder(
    out: Path, tensors: Iterator[tuple[str, Any]], config: Mapping[str, Any], *, source: Path, tokenizer: Path
) -> None:
    """Write tensors and config.json into the existing folder `out`, with the generation settings of the folder `source`
    and the tokenizer of `tokenizer`."""
    _write(tensors, out)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", out / "generation_config.json")
    copy_tokenizer(tokenizer, out)


def _write(tensors: Iterator[tuple[str, Any]], out: Path) -> None:
    """One safetensors file; several with an index where they are too large for one."""
    from safetensors.torch import save_file  # noqa: PLC0415 - heavy

    shards: list[dict[str, Any]] = [{}]
    index: dict[str, str] = {}
    total = 0

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(shards[0], out / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shards[0], name))
        shards[0] = {}

    size = 0
    for name, tensor in tensors:
        if size + tensor.nbytes > SHARD_BYTES and shards[0]:
            flush()
            size = 0
        shards[0][name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    if not index:
        save_file(shards[0], out / "model.safetensors", metadata={"format": "pt"})
        return
    flush()
    told = {"metadata": {"total_size": total}, "weight_map": index}
    (out / "model.safetensors.index.json").write_text(json.dumps(told, indent=2))
