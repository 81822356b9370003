"""Tensors in a safetensors file, by NumPy alone: data, which nothing runs when it is read."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.models.errors import CorruptArtefact

Tensor = npt.NDArray[Any]

_LENGTH = struct.Struct("<Q")
_KINDS: dict[str, type[np.generic]] = {"I8": np.int8, "F16": np.float16, "F32": np.float32}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write int8, float16 or float32 tensors."""
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(_LENGTH.pack(len(head)) + head + b"".join(tensor.tobytes() for tensor in tensors.values()))


def header(path: Path) -> dict[str, Any]:
    """What any safetensors file holds, and none of it: by name `dtype`, `shape`, and `data_offsets`, where its bytes
    begin and end. Raises CorruptArtefact."""
    try:
        with path.open("rb") as stream:
            (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            found = json.loads(stream.read(min(length, path.stat().st_size)))
        return {name: entry for name, entry in found.items() if name != "__metadata__"}
    except (OSError, ValueError, AttributeError, struct.error) as error:
        raise CorruptArtefact(f"{path} can't be read: {error}; export the version again") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_tensors` wrote. Raises CorruptArtefact."""
    try:
        data = path.read_bytes()
        (length,) = _LENGTH.unpack(data[: _LENGTH.size])
        header, body = json.loads(data[_LENGTH.size : _LENGTH.size + length]), data[_LENGTH.size + length :]
        found = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = np.frombuffer(body[begin:end], _KINDS[entry["dtype"]]).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise CorruptArtefact(f"{path} can't be read: {error}; export the version again") from error
    return found
