"""`retrain.quantization: w4a16`: 4 bits by AWQ and by GPTQ, and what loses less is served. Which that is depends on
model and task; the mean KL from the source says it, on the same answers for both."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from exporters.models import ExportFailed, Parity, write_atomic
from exporters.models.errors import ExportCutShort
from exporters.models.four_bits import Method

METHODS: tuple[Method, ...] = ("awq", "gptq")

_RECORD = "w4a16.json"


_MOST_CUTS = 3


class _Record(msgspec.Struct):
    """`cut`: how often the machine had no room for a method."""

    near: dict[Method, Parity] = {}
    cut: dict[Method, int] = {}


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """`near`: of each method that wrote a model, how near that is to its source. `failed`: of the others, why."""

    near: Mapping[Method, Parity]
    failed: Mapping[Method, str]

    @property
    def best(self) -> Method:
        """That with the smallest mean KL; AWQ where they are equal. What is not a number is the worst."""
        return min(self.near, key=lambda method: math.inf if math.isnan(kl := self.near[method].kl) else kl)

    def told(self) -> dict[str, Any]:
        """By method, for manifest and model card."""
        found: dict[Method, Any] = {method: msgspec.to_builtins(near) for method, near in self.near.items()}
        return {method: found.get(method) or {"failed": self.failed[method]} for method in METHODS}


def attempt(folder: Path, write: Callable[[Method], Parity]) -> Tried:
    """Let each method `write` its model, and compare it. What has been compared is noted in `folder`, so that an export
    that was killed goes on after it. Raises ExportCutShort where the machine had no room for a method, as it may have
    another time (twice; then the method has failed), ExportFailed where no method writes one."""
    file = folder / _RECORD
    record = msgspec.json.decode(file.read_bytes(), type=_Record) if file.exists() else _Record()
    near, failed, cut = record.near, dict[Method, str](), dict[Method, ExportCutShort]()
    for method in METHODS:
        if method in near:
            continue
        try:
            near[method] = write(method)
        except ExportFailed as error:
            failed[method] = str(error)
            if isinstance(error, ExportCutShort):
                record.cut[method] = record.cut.get(method, 0) + 1
                cut |= {method: error} if record.cut[method] < _MOST_CUTS else {}
        write_atomic(file, msgspec.json.encode(record))
    if cut:
        raise next(iter(cut.values()))
    if not near:
        raise ExportFailed("neither AWQ nor GPTQ wrote a model: " + "; ".join(failed.values()))
    return Tried(near={method: near[method] for method in METHODS if method in near}, failed=failed)


def remove_others(best: Method, *folders: Callable[[Method], Path]) -> None:
    """What the other method left in any of the `folders`."""
    for method in METHODS:
        for of in folders:
            if method != best:
                shutil.rmtree(of(method), ignore_errors=True)
